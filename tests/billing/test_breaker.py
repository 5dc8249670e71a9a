from services.billing.breaker import Breaker


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_calls_are_refused_after_some_failures_in_a_row() -> None:
    breaker = Breaker(failures=3, clock=Time())
    breaker.failed()
    breaker.failed()
    assert breaker.admits()
    breaker.failed()
    assert breaker.open
    assert not breaker.admits()


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(failures=2, clock=Time())
    breaker.failed()
    breaker.succeeded()
    breaker.failed()
    assert not breaker.open


def test_after_a_pause_one_call_is_let_through_to_look() -> None:
    time = Time()
    breaker = Breaker(failures=1, pause=5.0, clock=time)
    breaker.failed()
    time.now += 5.0
    assert [breaker.admits(), breaker.admits()] == [True, False]
    breaker.succeeded()
    assert breaker.admits()


def test_a_look_that_never_ends_does_not_keep_it_open_for_ever() -> None:
    time = Time()
    breaker = Breaker(failures=1, pause=5.0, clock=time)
    breaker.failed()
    time.now += 5.0
    assert breaker.admits()
    time.now += 5.0
    assert breaker.admits()
