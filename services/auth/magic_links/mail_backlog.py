"""Backlog of the mailer, and refusal of links and codes that would arrive too late."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from prometheus_client import Counter, Gauge

from shared.bus.consumer_lag import Lag, LagMonitor
from shared.bus.kafka_connection import KafkaConnection
from shared.errors import Unavailable

MAX_WAIT: Final = 1 / 4
"""Longest expected wait for the mailer, as a fraction of the lifetime of the link or code."""
INTERVAL_SECONDS: Final = 1.0
IDLE_INTERVAL_SECONDS: Final = 60.0
"""Interval while nothing waits for the mailer. An order ends it."""
RATE_SECONDS: Final = 30.0
"""The highest rate measured within this period counts as the mailer's: its rate is lower while it has little to do."""
MAX_RETRY_SECONDS: Final = 60
WAIT: Final = Gauge("nest_auth_mail_wait_seconds", "How long a mail or text ordered now is expected to wait.")
REFUSED: Final = Counter(
    "nest_auth_mails_refused", "Links and codes refused because they would have arrived too late, or not at all."
)


class MailBacklog(LagMonitor):
    """Estimates how long a mail or text that is ordered now waits for the mailer.

    Every instance reads the mailer's consumer lag from Kafka, also while the mailer is away: each second while records
    wait or orders arrive.

    Args:
        kafka: the connection to Kafka.
        prefix: prefix of topics and consumer groups.
        clock: returns Unix seconds.
    """

    def __init__(self, kafka: KafkaConnection, *, prefix: str, clock: Callable[[], float] = time.time) -> None:
        super().__init__(kafka, prefix=prefix, services=["mailer"], seconds=INTERVAL_SECONDS)
        self._clock = clock
        self._before: tuple[float, Lag] | None = None
        self._rates: deque[tuple[float, float]] = deque()
        self._ordered = asyncio.Event()
        WAIT.set_function(self.wait_seconds)

    def measured(self, service: str, lag: Lag) -> None:
        """Take a measurement, and the rate since the last one if the mailer was never idle in between."""
        super().measured(service, lag)
        now = self._clock()
        if self._before is not None:
            then, before = self._before
            handled = lag.handled - before.handled
            if before.records and lag.records and handled > 0 and now > then:
                self._rates.append((now, handled / (now - then)))
        while self._rates and self._rates[0][0] < now - RATE_SECONDS:
            self._rates.popleft()
        self._before = now, lag

    async def _pause(self) -> None:
        lag = self.lags.get("mailer")
        if lag is not None and not lag.records:
            with suppress(TimeoutError):
                async with asyncio.timeout(IDLE_INTERVAL_SECONDS):
                    await self._ordered.wait()
        self._ordered.clear()
        await super()._pause()

    def wait_seconds(self) -> float:
        """Seconds that a new order is expected to wait; 0 while Kafka, and so the backlog, is unknown.

        The backlog takes as long as the mailer needs for it at its rate. While the mailer is away or stuck, only
        the age of its oldest order is known.
        """
        lag = self.lags.get("mailer")
        if lag is None:
            return 0.0
        rate = max((rate for _, rate in self._rates), default=0.0)
        return max(lag.seconds(self._clock()), lag.records / rate if rate else 0.0)

    def must_be_short(self, lifetime: timedelta) -> None:
        """Refuse an order whose link or code would have lost much of its lifetime when it arrives.

        Raises:
            Unavailable: the wait is longer than ``MAX_WAIT`` of the lifetime.
        """
        self._ordered.set()
        excess = self.wait_seconds() - lifetime.total_seconds() * MAX_WAIT
        if excess > 0:
            REFUSED.inc()
            raise Unavailable(retry_after=max(1, min(MAX_RETRY_SECONDS, round(excess))))
