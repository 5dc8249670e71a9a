"""Pauses of single partitions, with two instances on a real Kafka."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import TopicPartition
from prometheus_client import REGISTRY

from shared.bus.delivery import Delivery
from shared.bus.outside_work import publish_outside_work
from shared.messages.auth.partitions import PartitionResumed
from tests.shared.bus_harness import BusHarness, RunningService, wait_until
from tests.shared.sample_services import Append

POISONED = 1


async def key_on(bus: BusHarness, partition: int) -> str:
    (key, *_) = [key for key in map(str, range(100)) if await bus.partition_of(key) == partition]
    return key


async def poison(bus: BusHarness, count: int) -> None:
    for _ in range(count):
        await bus.put_record("ledger.commands", b"poison", partition=POISONED)


async def resume(bus: BusHarness, *, dead_letter: bool = False) -> None:
    partition = f"ledger/ledger.commands/{POISONED}"
    order = PartitionResumed(key=partition, id=partition, dead_letter=dead_letter, at=datetime.now(UTC))
    await publish_outside_work(bus.producer, bus.sealer, order)


def waiting(running: RunningService) -> Callable[[], Any]:
    async def is_waiting() -> bool:
        return bool(running.consumer.pauses.waiting)

    return is_waiting


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"service": "ledger", **labels})


async def test_ten_dead_letters_in_a_row_pause_their_partition_alone(bus: BusHarness) -> None:
    async with bus.running(in_flight=8) as running:
        await poison(bus, 30)
        await wait_until(waiting(running))
        labels = {"topic": "ledger.commands", "partition": str(POISONED)}
        assert metric("nest_partition_paused", **labels) == 1
        assert metric("nest_partition_paused", **labels | {"partition": "0"}) == 0
        assert running.service.problems() == running.service.unready() == [], "not yet: the other partitions work"
        for partition in (0, 2, 3):
            key = await key_on(bus, partition)
            assert (await bus.call(Append(subject=key, number=1, key=key), seconds=10)).kind == "done"
        behind = await key_on(bus, POISONED)
        waits = await bus.send(Append(subject=behind, number=1, key=behind))
        assert 10 <= len(await bus.records("ledger.commands.dead")) < 10 + 8
        assert running.ledger.runs[waits.id] == 0
        await poison(bus, 5)
        await resume(bus, dead_letter=True)
        await bus.drained()
        assert metric("nest_partition_paused", **labels) == 0
    sources = [letter.source for letter in await bus.dead_letters()]
    assert len(sources) == len(set(sources)) == 35
    assert await bus.numbers(behind) == [1]


@pytest.mark.slow
async def test_resumed_partition_is_paused_again_by_ten_further_dead_letters(bus: BusHarness) -> None:
    async with bus.running(in_flight=1) as running:
        await poison(bus, 25)
        await wait_until(waiting(running))
        await resume(bus)

        async def paused_again() -> bool:
            return len(await bus.records("ledger.commands.dead")) == 20 and bool(running.consumer.pauses.waiting)

        await wait_until(paused_again)
        await resume(bus)
        await bus.drained()
    assert len({letter.source for letter in await bus.dead_letters()}) == 25


async def test_pause_survives_a_rebalance_and_a_restart(bus: BusHarness) -> None:
    async with bus.running(in_flight=1) as first:
        await poison(bus, 15)
        await wait_until(waiting(first))
        async with bus.running(in_flight=1) as second:

            async def balanced() -> bool:
                return len(second.consumer.assigned) == 3

            await wait_until(balanced)
            waiting_now = first.consumer.pauses.waiting | second.consumer.pauses.waiting
            assert waiting_now == {TopicPartition(f"{bus.prefix}ledger.commands", POISONED)}
    async with bus.running(in_flight=1) as third:
        await wait_until(waiting(third))
        await asyncio.sleep(0.3)
        assert len(await bus.records("ledger.commands.dead")) == 10
        await resume(bus)
        await bus.drained()


@pytest.mark.slow
async def test_another_release_does_not_honour_the_pause(bus: BusHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bus.running(in_flight=1) as first:
        await poison(bus, 12)
        await wait_until(waiting(first))

        async def committed() -> bool:
            return await bus.lag() == 2

        await wait_until(committed)
    monkeypatch.setattr("shared.bus.paused_partitions.RELEASE", "99.0")
    async with bus.running():
        await bus.drained()
    async with bus.running() as later:
        assert later.consumer.pauses.waiting == frozenset()


@pytest.mark.parametrize("dead_letter", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_failed_delivery_pauses_its_partition_and_the_record_waits(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch, *, dead_letter: bool
) -> None:
    deliver, broken = Delivery.deliver, True

    async def failing(self: Delivery, record: Any, topic: str) -> bool:
        if record.partition == POISONED and broken:
            raise ValueError("a bug of the bus")
        return await deliver(self, record, topic)

    monkeypatch.setattr(Delivery, "deliver", failing)
    key, other = await key_on(bus, POISONED), await key_on(bus, 0)
    async with bus.running() as running:
        await bus.send(Append(subject=key, number=1, key=key))
        await wait_until(waiting(running))
        assert (await bus.call(Append(subject=other, number=1, key=other), seconds=10)).kind == "done"
        assert await bus.records("ledger.commands.dead") == []
        broken = dead_letter
        await resume(bus, dead_letter=dead_letter)
        await bus.drained()
    assert await bus.numbers(key) == ([] if dead_letter else [1])
    assert [letter.reason for letter in await bus.dead_letters()] == ["failing"] * dead_letter


@pytest.mark.slow
async def test_too_many_waiting_records_hold_back_their_partition_alone(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.partition_pauses.MAX_TRACKED", 20)
    key, other = await key_on(bus, POISONED), await key_on(bus, 0)
    async with bus.running(in_flight=4) as running:
        first = await bus.send(Append(subject=key, number=0, key=key, gated=True))
        for number in range(1, 60):
            await bus.send(Append(subject=key, number=number, key=key))
        await wait_until(waiting(running))
        assert (await bus.call(Append(subject=other, number=1, key=other), seconds=10)).kind == "done"
        assert running.consumer.trackers[TopicPartition(f"{bus.prefix}ledger.commands", POISONED)].count < 40
        running.ledger.gate.set()
        await bus.drained()
    assert running.ledger.runs[first.id] == 1
