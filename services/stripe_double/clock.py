"""What time is it for the double? A clock that runs with the real one and can be moved ahead."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

HOUR = 3600
DAY = 24 * HOUR


class Clock:
    """The double's time in whole Unix seconds, as everywhere in Stripe's API.

    Args:
        offset: Seconds ahead of the real clock.
        start: Begin at this time instead.
    """

    def __init__(self, offset: float = 0.0, start: datetime | None = None) -> None:
        self.offset = start.timestamp() - time.time() if start else offset
        self._pinned: int | None = None
        self._frozen: int | None = None
        self._pass: Callable[[int], Awaitable[None]] | None = None

    def now(self) -> int:
        """Returns the time, in Unix seconds."""
        if self._pinned is not None:
            return self._pinned
        if self._frozen is not None:
            return self._frozen
        return int(time.time() + self.offset)

    @property
    def time(self) -> datetime:
        """The time as an aware UTC datetime."""
        return datetime.fromtimestamp(self.now(), UTC)

    def driven_by(self, pass_time: Callable[[int], Awaitable[None]]) -> None:
        """Sets what does everything that falls due up to a time when the clock is moved."""
        self._pass = pass_time

    async def advance(self, by: timedelta) -> None:
        """Moves the clock ahead; all that falls due in between happens, in order, at its own time.

        Raises:
            ValueError: `by` is negative; Stripe's own test clocks only go forward too.
        """
        if by < timedelta(0):
            raise ValueError("The clock only goes forward.")
        target = self.now() + int(by.total_seconds())
        if self._pass is not None:
            await self._pass(target)
        self.reach(target)

    async def advance_to(self, moment: datetime) -> None:
        """Moves the clock to a moment that lies ahead.

        Raises:
            ValueError: The moment has passed.
        """
        await self.advance(moment - self.time)

    def reach(self, moment: int) -> None:
        """Makes it that time unless it is that late already, without doing what falls due."""
        if moment <= self.now():
            return
        if self._frozen is not None:
            self._frozen = moment
        self.offset = moment - time.time()

    def freeze(self) -> None:
        """Stops the clock: from now on it moves by `advance` alone."""
        self._frozen = self.now()

    @contextmanager
    def pinned(self, moment: int) -> Iterator[None]:
        """Makes it exactly `moment` inside the block, for work that is due then but done later."""
        self._pinned = moment
        try:
            yield
        finally:
            self._pinned = None
