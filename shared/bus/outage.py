"""Outage of MongoDB, as one process observes it. A failed ping or a refusal begins it, a successful probe ends it.

The ping distinguishes an outage from a slow MongoDB, whose operations time out too. A refusal, such as a revoked right,
is an outage because the messages are not at fault, and wait until an operator has corrected it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import Gauge

from shared.telemetry import log

PATIENCE_SECONDS: Final = 5.0
"""How long callers wait for the end of an outage. Most elections of a new primary are shorter."""
RETRY_AFTER: Final = 5
"""``retry_after`` of the refusals during an outage, seconds."""
PING_PAUSE: Final = 0.5
"""Seconds between two pings during an outage."""
LOG_SECONDS: Final = 10.0
"""Interval of the log entry during an outage."""
OUTAGE_SECONDS: Final = Gauge(
    "nest_mongodb_outage_seconds", "How long MongoDB has not answered, or refused, this service; 0 if not.", ["service"]
)

Probe = Callable[[], Awaitable[bool]]


class Outage:
    """Whether MongoDB is away.

    Args:
        ping: returns whether MongoDB responds, within about a second.
        probe: returns whether this process can write to MongoDB, within a few seconds.
        service: service name, for metrics.

    Attributes:
        begun: set while MongoDB is away.
    """

    def __init__(self, ping: Probe, probe: Probe, *, service: str) -> None:
        self._ping = ping
        self._probe = probe
        self._reason = ""
        self._since: float | None = None
        self._check: asyncio.Task[bool] | None = None
        self._watch: asyncio.Task[None] | None = None
        self.begun = asyncio.Event()
        OUTAGE_SECONDS.labels(service).set_function(lambda: self.seconds)

    @property
    def seconds(self) -> float:
        """How long MongoDB has been away; 0 if it is not."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    @property
    def suspected(self) -> bool:
        """Whether MongoDB is away, or may be: the first ping after a failed operation has no answer yet."""
        return self._since is not None or self._check is not None

    @property
    def lasts(self) -> bool:
        """Whether the outage has lasted ``PATIENCE_SECONDS``, so that callers no longer wait."""
        return self.seconds >= PATIENCE_SECONDS

    def problems(self) -> list[str]:
        """The outage as a sentence for the health check, once it lasts."""
        return [f"MongoDB {self._reason}, for {self.seconds:.0f} s"] if self.begun.is_set() and self.lasts else []

    async def is_on(self, refusal: str | None = None) -> bool:
        """Return whether MongoDB is away. Call it after an operation has failed; concurrent calls share one ping.

        Args:
            refusal: why MongoDB refused the operation, as ``shared.mongo.refusal`` returns it.
        """
        if self._since is not None:
            return True
        if refusal is not None:
            self._begin(time.monotonic(), refusal)
            return True
        if self._check is None:
            self._check = asyncio.create_task(self._ping_once())
        return await asyncio.shield(self._check)

    async def stop(self) -> None:
        """Stop the pings."""
        tasks = [task for task in (self._check, self._watch) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ping_once(self) -> bool:
        began = time.monotonic()
        try:
            if await self._ping():
                return False
        finally:
            self._check = None
        if self._since is None:
            self._begin(began, "does not answer")
        return True

    def _begin(self, since: float, reason: str) -> None:
        self._since, self._reason = since, reason
        self.begun.set()
        self._watch = asyncio.create_task(self._probe_until_usable())

    async def _probe_until_usable(self) -> None:
        logged = 0.0
        while True:
            if time.monotonic() - logged >= LOG_SECONDS:
                logged = time.monotonic()
                log.warning(
                    "dependency unavailable",
                    dependency="MongoDB",
                    reason=self._reason,
                    seconds=round(self.seconds, 1),
                )
            await asyncio.sleep(PING_PAUSE)
            if await self._probe():
                break
        log.warning("dependency available again", dependency="MongoDB", seconds=round(self.seconds, 1))
        self._since = None
        self.begun.clear()
