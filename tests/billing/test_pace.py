import pytest

from services.billing.stripe_api.token_bucket import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def leaving(pace: Pace, clock: Clock, *, within: float) -> int:
    """How many calls leave if everybody asks at once and waits for so long at the most."""
    count = 0
    while pace.place(until=within) is not None:
        count += 1
    clock.now += within
    return count


@pytest.mark.parametrize(("rate", "at_once"), [(2, 1), (20, 5), (80, 20)])
def test_after_a_rest_a_quarter_of_a_seconds_worth_leaves_at_once(rate: float, at_once: int) -> None:
    clock = Clock()
    pace = Pace(rate, clock=clock)
    clock.now += 3600
    assert leaving(pace, clock, within=0) in (at_once, at_once + 1)


def test_in_no_second_more_leave_than_the_rate_and_a_quarter() -> None:
    clock = Clock()
    pace = Pace(80, clock=clock)
    clock.now += 60
    assert leaving(pace, clock, within=0.999) <= 100
    assert leaving(pace, clock, within=0.999) <= 81


def test_places_are_given_in_order() -> None:
    pace = Pace(10, clock=Clock())
    waits = [wait for _ in range(30) if (wait := pace.place()) is not None]
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(2.7, abs=0.11)


def test_who_can_not_wait_takes_no_place() -> None:
    clock = Clock()
    pace = Pace(1, clock=clock)
    assert pace.place() == 0
    assert pace.place(until=0.5) is None
    clock.now += 1
    assert pace.place(until=0.5) == 0
