"""When may the next call leave, so that Stripe's rate limits are kept? A token bucket of this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

BURST: Final = 0.25
"""Seconds' worth that may leave at once after a rest: in no second more than the rate and a quarter, so that 80 calls
a second stay below the 100 that Stripe takes (https://docs.stripe.com/rate-limits)."""


class Pace:
    """A token bucket that hands out places in order.

    Args:
        rate: calls a second in the long run.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate
        self._clock = clock
        self._saved = max(0.0, BURST - self._interval)
        self._next = clock() - self._saved
        """When the next place is; no more than the burst is saved up."""

    def place(self, *, until: float = float("inf")) -> float | None:
        """Take the next place: how many seconds to wait for it, 0 for now.

        None, and nothing is taken, when it comes later than so many seconds from now.
        """
        now = self._clock()
        soonest = max(self._next, now - self._saved)
        wait = max(0.0, round(soonest - now, 9))
        if wait > until:
            return None
        self._next = soonest + self._interval
        return wait
