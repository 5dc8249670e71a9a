"""When is it better not to ask a dependency at all? After some failures in a row not, for a while that grows.

Whoever waits on a dead dependency then waits no longer, and it isn't hammered while it recovers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import Gauge

FAILURES: Final = 3
"""So many in a row say that it is the dependency, and not one connection."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
PROBE_SECONDS: Final = 60.0
"""A probe that has not reported by then never will."""
_OPEN: Final = Gauge("nest_breaker_open", "1 while a dependency is not asked.", ["dependency"])


class CircuitBreaker:
    """A circuit breaker.

    After a pause one call goes ahead as a probe; its success lets all through again, its failure doubles the pause.

    Args:
        dependency: what is asked; for metrics.
        failures: how many in a row begin a pause.
        first_pause: seconds.
        longest_pause: seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        dependency: str,
        *,
        failures: int = FAILURES,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._clock = clock
        self._failures = 0
        self._reason = ""
        self._pause = 0.0
        self._closed_until = 0.0
        self._probing = False
        self._open = _OPEN.labels(dependency)

    @property
    def refusal(self) -> str | None:
        """Why nothing may be asked now; None when something may."""
        return self._reason if self._pause and self._clock() < self._closed_until else None

    def admit(self) -> str | None:
        """Ask right before a call: None lets it go, otherwise why not. The first one after a pause is the probe."""
        refusal = self.refusal
        if refusal is None and self._pause:
            self._probing = True
            self._closed_until = self._clock() + PROBE_SECONDS
        return refusal

    def succeeded(self) -> None:
        """The dependency has answered, whatever it said."""
        self._failures = 0
        self._pause = 0.0
        self._probing = False
        self._open.set(0)

    def failed(self, reason: str) -> None:
        """The dependency could not be reached, did not answer, or broke down over a call."""
        self._failures += 1
        self._reason = reason
        if self._failures < self._limit or (self.refusal is not None and not self._probing):
            # Too few yet; or calls that were made before the pause began, which say nothing new.
            return
        self._pause = min(self._pause * 2 or self._first_pause, self._longest_pause)
        self._closed_until = self._clock() + self._pause
        self._probing = False
        self._open.set(1)
