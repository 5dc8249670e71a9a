import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.stripe_double.clock import INTERVALS, add_intervals, next_period_end
from tests.stripe_double.shop import Shop, open_shop


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


moments = st.integers(unix("2020-01-01"), unix("2040-01-01"))


@pytest.mark.parametrize(
    ("start", "interval", "count", "end"),
    [
        ("2026-01-31", "month", 1, "2026-02-28"),
        ("2026-01-31", "month", 2, "2026-03-31"),
        ("2024-02-29", "year", 1, "2025-02-28"),
        ("2024-02-29", "year", 4, "2028-02-29"),
        ("2026-12-15", "month", 1, "2027-01-15"),
        ("2026-03-01", "week", 2, "2026-03-15"),
        ("2026-02-27", "day", 3, "2026-03-02"),
    ],
)
def test_intervals_end_on_the_same_day_or_the_months_last(start: str, interval: str, count: int, end: str) -> None:
    assert add_intervals(unix(start), interval, count) == unix(end)


def test_an_anchor_on_the_31st_bills_at_each_months_end() -> None:
    anchor = unix("2026-01-31")
    ends = []
    at = anchor
    for _ in range(4):
        at = next_period_end(anchor, "month", 1, at)
        ends.append(at)
    assert ends == [unix("2026-02-28"), unix("2026-03-31"), unix("2026-04-30"), unix("2026-05-31")]


@given(moments, st.sampled_from(INTERVALS), st.integers(1, 12), st.integers(0, 3 * 366 * 86400))
def test_the_next_period_end_is_the_first_one_after_a_moment(
    anchor: int, interval: str, count: int, later: int
) -> None:
    after = anchor + later
    steps = (add_intervals(anchor, interval, n * count) for n in itertools.count())
    assert next_period_end(anchor, interval, count, after) == next(step for step in steps if step > after)


async def test_the_clock_begins_at_the_start_time() -> None:
    async with open_shop(start=datetime(2030, 1, 31, tzinfo=UTC)) as shop:
        subscription = await shop.subscription()
        end = datetime.fromtimestamp(subscription.items.data[0].current_period_end, UTC)
        assert (end.month, end.day) == (2, 28)


async def test_the_clock_only_goes_forward(shop: Shop) -> None:
    with pytest.raises(ValueError, match="forward"):
        await shop.advance(days=-1)
