import pytest

from services.billing.stripe_api.token_bucket import TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def leave(bucket: TokenBucket, clock: Clock, *, within: float) -> int:
    """The number of calls that leave if all are made at once and each waits no longer than this."""
    count = 0
    while bucket.take(max_wait=within) is not None:
        count += 1
    clock.now += within
    return count


@pytest.mark.parametrize(("rate", "burst"), [(2, 1), (20, 5), (80, 20)])
def test_tokens_of_a_quarter_second_are_saved_up(rate: float, burst: int) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock=clock)
    clock.now += 3600
    assert leave(bucket, clock, within=0) in (burst, burst + 1)


def test_at_most_a_quarter_more_than_the_rate_leaves_in_a_second() -> None:
    clock = Clock()
    bucket = TokenBucket(80, clock=clock)
    clock.now += 60
    assert leave(bucket, clock, within=0.999) <= 100
    assert leave(bucket, clock, within=0.999) <= 81


def test_waits_grow_in_order() -> None:
    bucket = TokenBucket(10, clock=Clock())
    waits = [wait for _ in range(30) if (wait := bucket.take()) is not None]
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(2.7, abs=0.11)


def test_a_caller_that_cannot_wait_takes_no_token() -> None:
    clock = Clock()
    bucket = TokenBucket(1, clock=clock)
    assert bucket.take() == 0
    assert bucket.take(max_wait=0.5) is None
    clock.now += 1
    assert bucket.take(max_wait=0.5) == 0
