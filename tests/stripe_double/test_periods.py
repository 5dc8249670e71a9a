import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.stripe_double.periods import INTERVALS, add, next_boundary


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


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
def test_a_calendar_step_ends_on_the_same_day_or_the_months_last(
    start: str, interval: str, count: int, end: str
) -> None:
    assert add(unix(start), interval, count) == unix(end)


def test_an_anchor_on_the_31st_bills_at_each_months_end_without_drifting() -> None:
    anchor = unix("2026-01-31")
    ends = []
    at = anchor
    for _ in range(4):
        at = next_boundary(anchor, "month", 1, at)
        ends.append(at)
    assert ends == [unix("2026-02-28"), unix("2026-03-31"), unix("2026-04-30"), unix("2026-05-31")]


moments = st.integers(unix("2020-01-01"), unix("2040-01-01"))


@given(moments, st.sampled_from(INTERVALS), st.integers(1, 12), st.integers(0, 3 * 366 * 86400))
def test_the_next_boundary_is_the_first_step_after_a_moment(anchor: int, interval: str, count: int, later: int) -> None:
    after = anchor + later
    steps = (add(anchor, interval, n * count) for n in itertools.count())
    assert next_boundary(anchor, interval, count, after) == next(step for step in steps if step > after)
