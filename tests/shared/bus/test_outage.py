"""Beginning and end of an outage of MongoDB."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.bus.outage import Outage
from tests.shared.bus_harness import wait_until


class Mongo:
    """A MongoDB that counts pings."""

    def __init__(self) -> None:
        self.away = True
        self.pings = 0

    async def ping(self) -> bool:
        self.pings += 1
        await asyncio.sleep(0.01)
        return not self.away


@pytest.fixture
def mongo() -> Mongo:
    return Mongo()


@pytest.fixture
async def outage(mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Outage]:
    monkeypatch.setattr("shared.bus.outage.PING_PAUSE", 0.01)
    monkeypatch.setattr("shared.bus.outage.PATIENCE_SECONDS", 1.0)
    outage = Outage(mongo.ping, mongo.ping, service="test")
    yield outage
    await outage.stop()


async def test_a_failed_operation_is_no_outage_if_mongodb_answers(mongo: Mongo, outage: Outage) -> None:
    mongo.away = False
    failed = asyncio.create_task(outage.is_on())
    await asyncio.sleep(0)
    assert outage.suspected
    assert not await failed
    assert not outage.suspected
    assert not outage.begun.is_set()
    assert outage.seconds == 0


async def test_concurrent_failures_share_a_ping(mongo: Mongo, outage: Outage) -> None:
    mongo.away = False
    await asyncio.gather(*(outage.is_on() for _ in range(20)))
    assert mongo.pings == 1


async def test_an_outage_lasts_from_a_failed_ping_to_an_answered_one(mongo: Mongo, outage: Outage) -> None:
    assert await outage.is_on()
    assert outage.begun.is_set()
    assert not outage.lasts

    async def lasts() -> bool:
        return outage.lasts

    await wait_until(lasts)
    mongo.away = False

    async def over() -> bool:
        return not outage.begun.is_set()

    await wait_until(over)
    assert (outage.seconds, outage.lasts) == (0, False)
    assert not await outage.is_on()
    mongo.away = True
    assert await outage.is_on()


async def test_a_refusal_is_an_outage_until_this_process_can_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.bus.outage.PING_PAUSE", 0.01)
    monkeypatch.setattr("shared.bus.outage.PATIENCE_SECONDS", 0.0)
    answering, refusing = Mongo(), Mongo()
    answering.away = False
    outage = Outage(answering.ping, refusing.ping, service="test")
    try:
        assert await outage.is_on("does not permit its user to write")
        assert outage.problems() == ["MongoDB does not permit its user to write, for 0 s"]
        refusing.away = False

        async def over() -> bool:
            return not outage.begun.is_set()

        await wait_until(over)
        assert outage.problems() == []
        assert answering.pings == 0
    finally:
        await outage.stop()
