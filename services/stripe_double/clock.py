"""The double's time: a clock that can be advanced, and the calendar of billing periods."""

import time
from calendar import monthrange
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

HOUR = 3600
DAY = 24 * HOUR
INTERVALS = ("day", "week", "month", "year")
_MONTHS_IN_YEAR = 12
_LONGEST_DAYS = {"day": 1, "week": 7, "month": 31, "year": 366}


class Clock:
    """The double's time in whole Unix seconds, as everywhere in Stripe's API.

    It runs with the real clock, plus an offset.

    Args:
        offset: Seconds ahead of the real clock.
        start: Time to begin at; replaces `offset`.
    """

    def __init__(self, offset: float = 0.0, start: datetime | None = None) -> None:
        self.offset = start.timestamp() - time.time() if start else offset
        self._pinned: int | None = None
        self._frozen: int | None = None
        self._process_until: Callable[[int], Awaitable[None]] | None = None

    def now(self) -> int:
        """Return the time in Unix seconds."""
        if self._pinned is not None:
            return self._pinned
        if self._frozen is not None:
            return self._frozen
        return int(time.time() + self.offset)

    @property
    def time(self) -> datetime:
        """The time as an aware UTC datetime."""
        return datetime.fromtimestamp(self.now(), UTC)

    def on_advance(self, process_until: Callable[[int], Awaitable[None]]) -> None:
        """Set the callback that processes everything due up to a Unix time when the clock is advanced."""
        self._process_until = process_until

    async def advance(self, by: timedelta) -> None:
        """Advance the clock; everything due in between happens in order, each at its own time.

        Raises:
            ValueError: `by` is negative. Stripe's test clocks only go forward too.
        """
        if by < timedelta(0):
            raise ValueError("The clock only goes forward.")
        target = self.now() + int(by.total_seconds())
        if self._process_until is not None:
            await self._process_until(target)
        self.move_to(target)

    async def advance_to(self, moment: datetime) -> None:
        """Advance the clock to a moment in the future.

        Raises:
            ValueError: The moment has passed.
        """
        await self.advance(moment - self.time)

    def move_to(self, moment: int) -> None:
        """Set the clock to a Unix time without processing what is due; ignore times in the past."""
        if moment <= self.now():
            return
        if self._frozen is not None:
            self._frozen = moment
        self.offset = moment - time.time()

    def freeze(self) -> None:
        """Stop the clock; from now on only `advance` moves it."""
        self._frozen = self.now()

    @contextmanager
    def pinned(self, moment: int) -> Iterator[None]:
        """Make `now()` return exactly `moment` inside the block, for work that is processed after its due time."""
        self._pinned = moment
        try:
            yield
        finally:
            self._pinned = None


def add_intervals(moment: int, interval: str, count: int) -> int:
    """Return the Unix time `count` calendar intervals after a moment, in UTC.

    A day that the month lacks becomes the month's last day, so an anchor on the 31st bills at each
    month's end (docs.stripe.com/billing/subscriptions/billing-cycle).
    """
    start = datetime.fromtimestamp(moment, UTC)
    if interval in {"day", "week"}:
        return int((start + timedelta(days=count * (7 if interval == "week" else 1))).timestamp())
    months = count * (_MONTHS_IN_YEAR if interval == "year" else 1)
    year, month = divmod(start.year * _MONTHS_IN_YEAR + start.month - 1 + months, _MONTHS_IN_YEAR)
    day = min(start.day, monthrange(year, month + 1)[1])
    return int(start.replace(year=year, month=month + 1, day=day).timestamp())


def next_period_end(anchor: int, interval: str, count: int, after: int) -> int:
    """Return the first time after `after` that is a whole number of periods, 0 included, after the anchor."""
    if after < anchor:
        return anchor
    # Start with a number of periods that never overshoots: every interval at its longest.
    periods = (after - anchor) // (_LONGEST_DAYS[interval] * DAY * count)
    while (end := add_intervals(anchor, interval, periods * count)) <= after:
        periods += 1
    return end
