"""Admission control: how many calls may wait for one service, adapted to how fast it replies.

Without it an overloaded Nest accepts every call. Each then waits longer than its client does, and the work for it is
lost. The limit follows the queueing delay of the calls, as CoDel does (RFC 8289). If the median call has queued for too
long, there is a standing queue, and the limit is the service's rate times the intended delay. It is the median, where
CoDel takes the minimum: a service has a queue for each partition and key, and some of them are always short.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import median
from typing import Final

from prometheus_client import Counter, Gauge

TARGET_SECONDS: Final = 0.1
"""Highest median queueing delay that does not count as overload."""
STANDING_SECONDS: Final = 0.3
"""A queue counts as a standing one once the median has been above the target for so long. A rebalance or a garbage
collection delays many calls, but only for a moment."""
LIMIT_SECONDS: Final = 0.2
"""Queueing delay under overload: the limit is the number of calls that the service replies to meanwhile."""
INTERVAL_SECONDS: Final = 0.1
GROWTH: Final = 1.25
"""Factor by which the limit grows per interval without a standing queue."""
MIN_CALLS: Final = 64
"""Lowest limit: a service that sends no replies still gets some calls, whose replies show that it has recovered."""
LIMIT: Final = Gauge("nest_gateway_call_limit", "Calls that may wait for a service at the same time.", ["service"])
REFUSED: Final = Counter("nest_gateway_calls_refused", "Calls refused with 429 before they were read.", ["service"])


class CallLimit:
    """The calls of one service that wait, and how many may.

    The queueing delay of a call is the time until its reply without the time that the service took to handle it, so a
    slow handler, such as one that calls Stripe, is not mistaken for overload.

    Args:
        service: its name, for metrics.
        maximum: highest limit.
        clock: returns monotonic seconds.

    Attributes:
        waiting: number of calls that wait.
        limit: number of calls that may wait.
    """

    def __init__(self, service: str, maximum: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._maximum = maximum
        self._clock = clock
        self._refused = REFUSED.labels(service)
        self._began = self._idle_since = clock()
        self._replies = 0
        self._delays: list[float] = []
        self._standing_since: float | None = None
        self._arriving = 0
        self.waiting = 0
        self.limit = maximum
        LIMIT.labels(service).set_function(lambda: self.limit)

    def refuses(self) -> bool:
        """Return True, and count the refusal, if no further call may wait."""
        if self.waiting + self._arriving < self.limit:
            return False
        self._refused.inc()
        return True

    def arrive(self) -> None:
        """Count a request, not refused, whose call begins in the next iteration of the event loop.

        Otherwise all requests that are read in one iteration would pass, and most would be refused after the work.
        """
        if not self._arriving:
            asyncio.get_running_loop().call_soon(self._forget_arriving)
        self._arriving += 1

    def _forget_arriving(self) -> None:
        # Runs before the tasks of these requests, which begin their calls before the next requests are read.
        self._arriving = 0

    def begin(self) -> None:
        """Add a call that waits."""
        if not self.waiting and (now := self._clock()) - self._idle_since >= STANDING_SECONDS:
            # No queue is left, and time without calls says nothing about the service's rate. A shorter pause is no
            # evidence: under overload the replies to all calls that wait may arrive at once.
            self.limit, self._standing_since = self._maximum, None
            self._start_interval(now)
        self.waiting += 1

    def end(self, queued: float | None, *, replied: bool = True) -> None:
        """Remove a call, and adapt the limit.

        Args:
            queued: its queueing delay in seconds; None if it is unknown.
            replied: False if the call timed out.
        """
        self.waiting -= 1
        now = self._clock()
        if not self.waiting:
            self._idle_since = now
        if queued is None:
            return
        self._replies += replied
        self._delays.append(queued)
        if now - self._began >= INTERVAL_SECONDS:
            self._adapt(now, median(self._delays))
            self._start_interval(now)

    def _start_interval(self, now: float) -> None:
        self._began, self._replies, self._delays = now, 0, []

    def _adapt(self, now: float, delay: float) -> None:
        if delay <= TARGET_SECONDS:
            self._standing_since = None
            self.limit = min(self._maximum, int(self.limit * GROWTH) + 1)
            return
        if self._standing_since is None:
            self._standing_since = now
        if now - self._standing_since >= STANDING_SECONDS:
            rate = self._replies / (now - self._began)
            self.limit = min(self._maximum, max(MIN_CALLS, int(rate * LIMIT_SECONDS)))
