"""Token bucket that keeps the calls of this process below Stripe's rate limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

BURST_SECONDS: Final = 0.25
"""Tokens saved up while idle, in seconds of the rate. In any second at most 1.25 times the rate leaves, so that 80
calls a second stay below Stripe's limit of 100 (https://docs.stripe.com/rate-limits)."""


class TokenBucket:
    """A token bucket whose callers take tokens in advance and wait for them, in order.

    ``rate`` is in tokens per second; ``clock`` returns monotonic seconds.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate
        self._clock = clock
        self._burst = max(0.0, BURST_SECONDS - self._interval)
        self._next = clock() - self._burst
        """When the next token is available; never longer ago than the burst."""

    @property
    def next_wait(self) -> float:
        """Seconds until the next token is available."""
        return max(0.0, round(self._next - self._clock(), 9))

    def take(self, *, max_wait: float = float("inf")) -> float | None:
        """Take the next token and return the seconds to wait before using it.

        None is returned, and no token is taken, if that is longer than ``max_wait`` seconds.
        """
        now = self._clock()
        available = max(self._next, now - self._burst)
        wait = max(0.0, round(available - now, 9))
        if wait > max_wait:
            return None
        self._next = available + self._interval
        return wait
