"""Circuit breaker: after several failures in a row, calls to a dependency are rejected for a growing pause.

Callers of a failing dependency get their error without waiting, and the dependency has time to recover.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import Gauge

FAILURES: Final = 3
"""Failures in a row that open the circuit: more than one broken connection."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
PROBE_SECONDS: Final = 60.0
"""Time after which a probe without a result is considered lost."""
_OPEN: Final = Gauge("nest_breaker_open", "1 while calls to a dependency are rejected.", ["dependency"])


class CircuitBreaker:
    """The circuit breaker of one dependency, named for metrics. Pauses are seconds, and so is the monotonic ``clock``.

    After a pause one call is admitted as a probe. If it succeeds, all calls are admitted again; if it fails, the pause
    doubles up to ``LONGEST_PAUSE``.
    """

    def __init__(
        self,
        dependency: str,
        *,
        failures: int = FAILURES,
        first_pause: float = FIRST_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_failures = failures
        self._first_pause = first_pause
        self._clock = clock
        self._failures = 0
        self._reason = ""
        self._pause = 0.0
        self._open_until = 0.0
        self._probing = False
        self._open = _OPEN.labels(dependency)

    @property
    def rejection(self) -> str | None:
        """The last failure, if a call would be rejected now; otherwise None. Starts no probe."""
        return self._reason if self._pause and self._clock() < self._open_until else None

    def before_call(self) -> str | None:
        """Return None if a call is admitted, otherwise the last failure. The first call after a pause is the probe."""
        rejection = self.rejection
        if rejection is None and self._pause:
            self._probing = True
            self._open_until = self._clock() + PROBE_SECONDS
        return rejection

    def succeeded(self) -> None:
        """Record that the dependency answered, whatever the answer was."""
        self._failures = 0
        self._pause = 0.0
        self._probing = False
        self._open.set(0)

    def failed(self, reason: str) -> None:
        """Record that the dependency could not be reached, did not answer, or failed during a call."""
        self._failures = min(self._failures + 1, self._max_failures)
        if self._failures == self._max_failures:
            self.open(reason)

    def open(self, reason: str) -> None:
        """Record a failure that every call would meet, and reject calls from now on."""
        self._failures = self._max_failures
        self._reason = reason
        if self.rejection is not None and not self._probing:
            # A call that started before the pause shows nothing new.
            return
        self._pause = min(self._pause * 2 or self._first_pause, LONGEST_PAUSE)
        self._open_until = self._clock() + self._pause
        self._probing = False
        self._open.set(1)
