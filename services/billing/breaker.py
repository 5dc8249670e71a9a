"""When is it better not to call at all? A circuit breaker for one dependency.

After some failures in a row calls are refused at once, so that whoever waits on a dead dependency waits no longer and
the dependency isn't hammered while it recovers; now and then one call goes through to see whether it is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from prometheus_client import Gauge

FAILURES: Final = 5
PAUSE_SECONDS: Final = 5.0

_OPEN: Final = Gauge("nest_stripe_breaker_open", "1 while calls to Stripe are refused without being made.")


class Breaker:
    """A circuit breaker.

    Args:
        failures: how many in a row open it.
        pause: seconds between two calls that try whether the dependency is back.
        clock: monotonic seconds; injected by tests.
    """

    def __init__(
        self, *, failures: int = FAILURES, pause: float = PAUSE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._pause = pause
        self._clock = clock
        self._failures = 0
        self._next_try = 0.0

    @property
    def open(self) -> bool:
        """Whether calls are refused, but for one now and then."""
        return self._failures >= self._limit

    def admits(self) -> bool:
        """Whether a call may be made now; while open, one at a time says yes and the next waits its pause."""
        if not self.open:
            return True
        now = self._clock()
        if now < self._next_try:
            return False
        # Moved on before the answer is known: a trial call that never ends must not keep the breaker open for ever.
        self._next_try = now + self._pause
        return True

    def succeeded(self) -> None:
        """The dependency answered: all calls are let through again."""
        self._failures = 0
        _OPEN.set(0)

    def failed(self) -> None:
        """The dependency did not answer, or broke down over a call."""
        self._failures += 1
        if self._failures == self._limit:
            self._next_try = self._clock() + self._pause
            _OPEN.set(1)
