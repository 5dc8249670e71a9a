"""Backlog of the mailer: how long an order is expected to wait, and when it is refused."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from services.auth.magic_links.mail_backlog import INTERVAL_SECONDS, MAX_RETRY_SECONDS, MailBacklog
from shared.bus.consumer_lag import Lag
from shared.bus.kafka_connection import KafkaConnection
from shared.errors import Unavailable

LIFETIME = timedelta(minutes=10)
MAX_WAIT = 150


class Backlog:
    """A backlog on a clock of its own, in which one measurement follows the other every second."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.handled = 1_000
        self.backlog = MailBacklog(KafkaConnection("127.0.0.1:1"), prefix="", clock=lambda: self.now)

    def measure(self, records: int, *, age: float = 0.0, rate: float = 0.0, seconds: int = 1) -> float:
        for _ in range(seconds):
            self.now += INTERVAL_SECONDS
            self.handled += int(rate)
            oldest = int((self.now - age) * 1000) if records else None
            self.backlog.measured("mailer", Lag(records, oldest, self.handled, ()))
        return self.backlog.wait_seconds()


def test_wait_is_unknown_and_zero_before_the_first_measurement() -> None:
    assert Backlog().backlog.wait_seconds() == 0


@pytest.mark.parametrize(
    ("records", "age", "rate", "wait"),
    [
        pytest.param(0, 0.0, 10, 0, id="no backlog"),
        pytest.param(100, 5.0, 10, 10, id="backlog of ten seconds"),
        pytest.param(6000, 40.0, 20, 300, id="burst: its newest order waits longer than its oldest has waited"),
        pytest.param(10, 90.0, 20, 90, id="one stuck order"),
        pytest.param(3, 300.0, 0, 300, id="mailer away"),
        pytest.param(50_000, 3.0, 0, 3, id="mailer away for a moment: its rate is unknown"),
    ],
)
def test_wait_is_the_backlog_at_the_rate_of_the_mailer(records: int, age: float, rate: float, wait: float) -> None:
    assert Backlog().measure(records, age=age, rate=rate, seconds=5) == pytest.approx(wait, rel=0.01)


def test_rate_of_an_idle_mailer_is_not_taken_for_its_limit() -> None:
    backlog = Backlog()
    backlog.measure(500, rate=50, seconds=5)
    backlog.measure(1, rate=1, seconds=10)
    assert backlog.measure(1000, rate=50) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize(
    ("wait", "retry_after"), [(MAX_WAIT - 1, None), (MAX_WAIT + 1, 1), (MAX_WAIT + 30, 30), (9_999, MAX_RETRY_SECONDS)]
)
def test_order_that_would_wait_for_a_quarter_of_its_lifetime_is_refused(wait: float, retry_after: int | None) -> None:
    backlog = Backlog()
    backlog.measure(1, age=wait)
    if retry_after is None:
        backlog.backlog.must_be_short(LIFETIME)
        return
    with pytest.raises(Unavailable) as refused:
        backlog.backlog.must_be_short(LIFETIME)
    assert refused.value.meta["retry_after"] == retry_after


async def test_an_order_ends_the_pause_of_an_idle_measurement() -> None:
    kafka = Backlog()
    kafka.backlog._seconds = 0.0
    kafka.measure(1)
    await asyncio.wait_for(kafka.backlog._pause(), 30)
    kafka.measure(0)
    pausing = asyncio.create_task(kafka.backlog._pause())
    await asyncio.sleep(0.05)
    assert not pausing.done()
    kafka.backlog.must_be_short(LIFETIME)
    await asyncio.wait_for(pausing, 30)
