"""When does a billing period end? Calendar steps from an anchor, in UTC."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta

from services.stripe_double.clock import DAY

INTERVALS = ("day", "week", "month", "year")
_MONTHS_IN_YEAR = 12
_LONGEST_DAYS = {"day": 1, "week": 7, "month": 31, "year": 366}


def add(moment: int, interval: str, count: int) -> int:
    """Returns the Unix time `count` intervals after a moment.

    A day that a month lacks becomes its last one, so that an anchor on the 31st bills at each
    month's end (docs.stripe.com/billing/subscriptions/billing-cycle).
    """
    start = datetime.fromtimestamp(moment, UTC)
    if interval in {"day", "week"}:
        return int((start + timedelta(days=count * (7 if interval == "week" else 1))).timestamp())
    months = count * (_MONTHS_IN_YEAR if interval == "year" else 1)
    year, month = divmod(start.year * _MONTHS_IN_YEAR + start.month - 1 + months, _MONTHS_IN_YEAR)
    day = min(start.day, monthrange(year, month + 1)[1])
    return int(start.replace(year=year, month=month + 1, day=day).timestamp())


def next_boundary(anchor: int, interval: str, count: int, after: int) -> int:
    """Returns the first of the times `anchor`, `anchor` + 1 step, … that lies behind `after`."""
    if after < anchor:
        return anchor
    # A guess that never overshoots: intervals taken at their longest.
    steps = (after - anchor) // (_LONGEST_DAYS[interval] * DAY * count)
    while (boundary := add(anchor, interval, steps * count)) <= after:
        steps += 1
    return boundary
