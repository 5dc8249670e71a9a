"""Clocks that are wrong: warnings, refused messages and announcements."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from shared.clock_check import ClockCheck, ClockGate
from shared.mongo import connect
from tests.metrics import value
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import Append


class Clock:
    """A clock that is ``ahead`` by so many seconds."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the services that a test creates; those of other tests in this process keep theirs."""
    clock = Clock()
    monkeypatch.setattr("shared.service.ClockCheck", partial(ClockCheck, clock=clock))
    monkeypatch.setattr("shared.service.ClockGate", partial(ClockGate, seconds=0.2))
    return clock


@pytest.mark.parametrize(
    ("ahead", "event", "wrong"),
    [
        (0.0, "", False),
        (0.9, "", False),
        (-0.9, "", False),
        (3.0, "clock differs", False),
        (-3.0, "clock differs", False),
        (28.0, "clock differs", False),
        (-28.0, "clock differs", False),
        (33.0, "clock is wrong", True),
        (-33.0, "clock is wrong", True),
        (-600.0, "clock is wrong", True),
        (86_400.0, "clock is wrong", True),
    ],
)
async def test_clock_is_compared_with_both_references(
    bus: BusHarness, clock: Clock, capsys: pytest.CaptureFixture[str], *, ahead: float, event: str, wrong: bool
) -> None:
    clock.ahead = ahead
    check = ClockCheck(service="ledger", instance="one", producer=bus.producer, client=bus.client, clock=clock)
    await check.measure()
    await check.measure()
    assert check.skew == {"MongoDB": pytest.approx(ahead, abs=1.0), "Kafka": pytest.approx(ahead, abs=1.0)}
    assert check.wrong is wrong
    assert bool(check.problems()) is wrong
    assert capsys.readouterr().out.count("clock ") == bool(event), "each change is logged once"
    labels = {"service": "ledger", "reference": "MongoDB"}
    assert REGISTRY.get_sample_value("nest_clock_skew_seconds", labels) == check.skew["MongoDB"]
    announcement = json.loads((await bus.records("instances"))[-1].value)
    assert (announcement["service"], announcement["instance"]) == ("ledger", "one")
    assert announcement["skew"] == {"MongoDB": pytest.approx(ahead, abs=1.0), "Kafka": pytest.approx(ahead, abs=1.0)}


async def test_a_reference_that_alone_differs_is_only_reported(bus: BusHarness, clock: Clock) -> None:
    check = ClockCheck(service="ledger", instance="one", producer=bus.producer, client=bus.client, clock=clock)
    await check.measure()
    check.skew["MongoDB"] = 600.0
    assert not check.wrong


async def test_references_that_do_not_answer_are_ignored(bus: BusHarness, clock: Clock) -> None:
    clock.ahead = 600.0
    away = connect("mongodb://127.0.0.1:1/?replicaSet=none", application="test", timeout=0.2)
    check = ClockCheck(service="ledger", instance="one", producer=bus.producer, client=away, clock=clock)
    await check.measure()
    assert list(check.skew) == ["Kafka"]
    assert value("nest_dependency_up", service="ledger", dependency="mongodb") == 0
    assert value("nest_dependency_up", service="ledger", dependency="kafka") == 1
    assert check.wrong
    await away.close()


async def test_an_instance_with_a_wrong_clock_takes_no_messages(bus: BusHarness, clock: Clock) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        clock.ahead = -600.0
        consumer = running.consumer
        await wait_until(lambda: is_true(running.service.problems() and not consumer.assigned), 10)
        assert "behind MongoDB" in running.service.problems()[0]
        waiting = asyncio.create_task(bus.call(Append(subject="s", number=1, key="s"), seconds=30))
        await asyncio.sleep(1)
        assert running.ledger.runs.total() == 1
        clock.ahead = 0.0
        assert (await waiting).kind == "done"
        assert running.service.problems() == []


async def test_a_start_with_a_wrong_clock_takes_no_messages(bus: BusHarness, clock: Clock) -> None:
    clock.ahead = 600.0
    async with bus.running() as running:
        assert "ahead of" in running.service.problems()[0]
        await bus.send(Append(subject="s", number=0, key="s"))
        await asyncio.sleep(0.5)
        assert running.ledger.runs.total() == 0
        clock.ahead = 0.0
        await bus.drained()
        assert running.ledger.runs.total() == 1


class FailingCheck:
    """A clock check whose second measurement fails, and whose third one finds that the clock is wrong."""

    def __init__(self) -> None:
        self.measurements = 0

    async def measure(self) -> None:
        self.measurements += 1
        if self.measurements == 2:
            raise KeyError("localTime")

    @property
    def wrong(self) -> bool:
        return self.measurements >= 3


async def test_a_check_that_fails_unexpectedly_is_logged_and_repeated() -> None:
    closed = asyncio.Event()

    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        yield
        closed.set()

    gate = ClockGate(cast("ClockCheck", FailingCheck()), opened, seconds=0.2)
    with capture_logs() as logs:
        await gate.start()
        async with asyncio.timeout(10):
            await closed.wait()
        await gate.stop()
    assert [entry["event"] for entry in logs] == ["clock gate failed"]


async def is_true(value: object) -> bool:
    return bool(value)
