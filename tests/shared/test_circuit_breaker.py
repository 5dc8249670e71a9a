import pytest

from shared.circuit_breaker import FAILURES, FIRST_PAUSE, LONGEST_PAUSE, PROBE_SECONDS, CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    """A breaker whose circuit is open."""
    breaker = CircuitBreaker("test", clock=clock)
    for _ in range(FAILURES):
        assert breaker.before_call() is None
        breaker.failed("refused")
    return breaker


def test_fewer_failures_than_the_limit_reject_no_call(clock: Clock) -> None:
    breaker = CircuitBreaker("test", clock=clock)
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.failed("refused")
        breaker.succeeded()
    assert breaker.before_call() is None


def test_failures_in_a_row_reject_calls_with_the_reason(breaker: CircuitBreaker) -> None:
    assert (breaker.rejection, breaker.before_call()) == ("refused", "refused")


def test_one_call_is_admitted_after_the_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now += FIRST_PAUSE
    assert breaker.rejection is None
    assert [breaker.before_call() for _ in range(3)] == [None, "refused", "refused"]


def test_a_successful_probe_admits_all_calls(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now += FIRST_PAUSE
    breaker.before_call()
    breaker.succeeded()
    assert [breaker.before_call() for _ in range(3)] == [None, None, None]


def test_a_failed_probe_doubles_the_pause_up_to_the_longest(breaker: CircuitBreaker, clock: Clock) -> None:
    pause = FIRST_PAUSE
    for _ in range(12):
        clock.now += pause - 0.01
        assert breaker.before_call() == "refused"
        clock.now += 0.02
        assert breaker.before_call() is None
        breaker.failed("refused")
        pause = min(pause * 2, LONGEST_PAUSE)
    assert pause == LONGEST_PAUSE


def test_failures_of_earlier_calls_do_not_lengthen_the_pause(breaker: CircuitBreaker, clock: Clock) -> None:
    for _ in range(50):
        breaker.failed("refused")
    clock.now += FIRST_PAUSE
    assert breaker.before_call() is None


def test_a_lost_probe_is_followed_by_another(breaker: CircuitBreaker, clock: Clock) -> None:
    clock.now += FIRST_PAUSE
    assert breaker.before_call() is None
    clock.now += PROBE_SECONDS
    assert breaker.before_call() is None
