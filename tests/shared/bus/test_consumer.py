"""Concurrency, order of keys, offsets and rebalances of a consumer."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY

from shared.bus.delivery import Delivery
from shared.bus.envelope import Envelope
from shared.ids import new_message_id
from tests.shared.bus_harness import BusHarness, RunningService, wait_until
from tests.shared.sample_services import CONSUMED, Append, Total


async def assert_in_order(bus: BusHarness, counts: dict[str, int]) -> None:
    """Assert that every number of every subject was appended once and in order."""
    for subject, count in counts.items():
        assert await bus.listed(subject) == list(range(count)), f"{subject} is out of order"
        assert sorted(await bus.numbers(subject)) == list(range(count)), f"{subject} does not have each number once"


@asynccontextmanager
async def load(bus: BusHarness, instances: list[RunningService]) -> AsyncIterator[Counter[str]]:
    """Send commands for 24 subjects during the block, at most some 200 ahead of the instances."""
    counts: Counter[str] = Counter()
    stopping = asyncio.Event()

    async def run() -> None:
        while not stopping.is_set():
            commands = [
                Append(subject=str(one), number=counts[str(one)], key=str(one), pause=0.03) for one in range(24)
            ]
            await asyncio.gather(*map(bus.send, commands))
            counts.update(command.subject for command in commands)
            await wait_until(lambda: caught_up(counts, instances), 60, "no command is handled any more")

    async def caught_up(counts: Counter[str], instances: list[RunningService]) -> bool:
        return counts.total() - sum(len(each.ledger.runs) for each in instances) < 200

    task = asyncio.create_task(run())
    try:
        yield counts
    finally:
        stopping.set()
        await task


async def test_256_messages_in_flight_with_retries_keep_the_order_of_keys(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.delivery.FIRST_PAUSE", 0.005)
    seeded = random.Random(7)
    counts = {str(subject): 20 for subject in range(40)}
    async with bus.running() as running:
        for number in range(20):
            commands = [
                Append(
                    subject=subject,
                    number=number,
                    key=subject,
                    fail=seeded.choice([0, 0, 0, 1, 2]),
                    pause=seeded.choice([0, 0, 0.003]),
                )
                for subject in counts
            ]
            await asyncio.gather(*map(bus.send, commands))
        await bus.drained()
    assert running.ledger.overlaps == 0
    assert max(running.ledger.runs.values()) == 3
    await assert_in_order(bus, counts)


async def test_a_slow_key_does_not_delay_others(bus: BusHarness) -> None:
    async with bus.running() as running:
        slow = await bus.send(Append(subject="slow", number=0, key="slow", gated=True))
        behind = await bus.send(Append(subject="slow", number=1, key="slow"))
        await wait_until(lambda: has_started(running, slow.id))
        for number in range(30):
            assert (await bus.call(Append(subject=str(number), number=0, key=str(number)))).kind == "done"
        assert running.ledger.runs[behind.id] == 0
        running.ledger.gate.set()
        await bus.drained()
    assert await bus.listed("slow") == [0, 1]


async def has_started(running: RunningService, message_id: str) -> bool:
    return bool(running.ledger.runs[message_id])


async def test_a_retried_message_delays_only_its_key(bus: BusHarness) -> None:
    async with bus.running() as running:
        failing = await bus.send(Append(subject="bad", number=0, key="bad", fail=3))
        behind = await bus.send(Append(subject="bad", number=1, key="bad"))
        await wait_until(lambda: has_started(running, failing.id))
        assert (await bus.call(Append(subject="good", number=0, key="good"))).kind == "done"
        assert running.ledger.runs[behind.id] == 0
        await bus.drained()
    assert await bus.listed("bad") == [0, 1]


async def test_messages_without_a_key_run_concurrently(bus: BusHarness) -> None:
    async with bus.running():
        start = time.monotonic()
        await asyncio.gather(*(bus.call(Total(subject="s", pause=0.5)) for _ in range(20)))
        assert time.monotonic() - start < 8


async def test_no_more_messages_run_than_allowed(bus: BusHarness) -> None:
    async with bus.running(in_flight=5) as running:
        for number in range(40):
            await bus.send(Append(subject=str(number), number=0, key=str(number), pause=0.02))
        await bus.drained()
        assert len(running.ledger.runs) == 40
        assert 2 <= running.ledger.most_running <= 5


async def test_queries_are_answered_while_commands_hold_all_slots(bus: BusHarness) -> None:
    async with bus.running(in_flight=8) as running:
        sent = [await bus.send(Append(subject=str(each), number=0, key=str(each), gated=True)) for each in range(60)]

        async def slots_are_taken() -> bool:
            return len(running.ledger.runs) == 8

        await wait_until(slots_are_taken)
        for _ in range(5):
            assert (await bus.call(Total(subject="s"), seconds=5)).kind == "done"
        assert sum(running.ledger.running.values()) == 8
        running.ledger.gate.set()
        await bus.drained()
        assert set(running.ledger.runs) >= {each.id for each in sent}


async def test_the_age_of_the_oldest_unfinished_message_is_a_metric(bus: BusHarness) -> None:
    async with bus.running():
        call = asyncio.create_task(bus.call(Total(subject="s", pause=1.0)))

        async def measured() -> bool:
            return (REGISTRY.get_sample_value("nest_oldest_message_seconds", {"service": "ledger"}) or 0) > 0.5

        await wait_until(measured)
        await call


async def test_dead_letters_with_good_messages_in_between_pause_nothing(bus: BusHarness) -> None:
    async with bus.running() as running:
        key, *_ = [key for key in map(str, range(100)) if await bus.partition_of(key) == 1]
        for number in range(24):
            await bus.put_record("ledger.commands", b"poison", key=key.encode(), partition=1)
            if number % 6 == 5:
                await bus.send(Append(subject="s", number=number, key=key))
        await bus.drained()
        assert running.consumer.pauses.waiting == frozenset()
    assert len(await bus.records("ledger.commands.dead")) == 24


async def test_a_stop_finishes_the_running_messages(bus: BusHarness) -> None:
    async with bus.running() as running:
        slow = [
            await bus.send(Append(subject=f"s{number}", number=0, key=f"s{number}", pause=1)) for number in range(8)
        ]
        await wait_until(lambda: has_started(running, slow[-1].id))
    rows = {row["_id"] for row in await bus.rows()}
    assert rows >= {envelope.id for envelope in slow if running.ledger.runs[envelope.id]}
    assert await bus.lag() == 0
    # The next instance handles none of them again.
    async with bus.running() as successor:
        await bus.call(Append(subject="after", number=0))
        assert len(successor.ledger.runs) == 1


async def test_a_stop_ends_after_its_timeout(bus: BusHarness) -> None:
    async with bus.running(drain_seconds=0.5) as running:
        slow = await bus.send(Append(subject="s", number=0, key="s", gated=True))
        behind = await bus.send(Append(subject="s", number=1, key="s"))
        await wait_until(lambda: has_started(running, slow.id))
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 15
    running.ledger.gate.set()
    async with bus.running() as successor:
        successor.ledger.gate.set()
        await bus.drained()
        assert successor.ledger.runs[behind.id] == 1
    await assert_in_order(bus, {"s": 2})


@pytest.mark.parametrize("rounds", [1, pytest.param(4, marks=pytest.mark.slow)])
async def test_rebalances_under_load_lose_and_repeat_nothing(bus: BusHarness, rounds: int) -> None:
    async with bus.running(in_flight=12) as first, bus.running("audit"):
        instances = [first]
        async with load(bus, instances) as counts:
            for _ in range(rounds):
                async with bus.running(in_flight=12) as second:
                    instances.append(second)
                    await wait_until(
                        lambda second=second: has_handled_fifty(second), 20, "the second instance handled nothing"
                    )  # type: ignore[misc]
        await bus.drained("ledger", "audit")
    assert [(each.ledger.overlaps, each.service.problems()) for each in instances] == [(0, [])] * (rounds + 1)
    assert counts.total() == len(await bus.rows())
    await assert_in_order(bus, counts)
    for subject, count in counts.items():
        assert sorted(await bus.numbers(subject, "audit")) == list(range(count))
    assert await bus.records("ledger.commands.dead") == []


async def test_records_fetched_before_a_rebalance_are_left_to_the_new_owner(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.consumer.REVOKE_SECONDS", 0.2)
    keys = {
        number: [key for key in map(str, range(200)) if await bus.partition_of(key) == number][:4]
        for number in range(4)
    }
    async with bus.running(in_flight=8) as first:
        slow = [subject for subjects in keys.values() for subject in subjects[:2]]
        sent = [await bus.send(Append(subject=each, number=0, key=each, gated=True)) for each in slow[:-1]]
        sent.append(await bus.send(Append(subject=slow[-1], number=0, key=slow[-1], pause=1.5)))
        await wait_until(lambda: all_started(first, sent))
        # The plug is fetched alone and waits for the limit, so that the rest is fetched together after it.
        plug = await bus.send(Append(subject="plug", number=0, key="plug", gated=True))
        quick = {
            each: await bus.send(Append(subject=each, number=0, key=each))
            for subjects in keys.values()
            for each in subjects[2:]
        }
        await wait_until(lambda: all_started(first, [plug]))
        async with bus.running(in_flight=50) as second:
            await wait_until(lambda: owns_two_partitions(second))
            first.ledger.gate.set()
            second.ledger.gate.set()
            taken_over = {
                partition.partition for partition in second.consumer.assigned if "commands" in partition.topic
            }
            await bus.drained()
            for number, subjects in keys.items():
                for subject in subjects[2:]:
                    assert bool(second.ledger.runs[quick[subject].id]) == (number in taken_over)
                    assert bool(first.ledger.runs[quick[subject].id]) == (number not in taken_over)
    await assert_in_order(bus, {subject: 1 for subjects in keys.values() for subject in subjects})


async def all_started(running: RunningService, sent: list[Envelope]) -> bool:
    return all(running.ledger.runs[envelope.id] for envelope in sent)


async def owns_two_partitions(running: RunningService) -> bool:
    return sum("commands" in partition.topic for partition in running.consumer.assigned) == 2


async def has_handled_fifty(running: RunningService) -> bool:
    return len(running.ledger.runs) >= 50


async def test_ten_deliveries_of_one_message_have_one_effect(bus: BusHarness) -> None:
    async with bus.running(), bus.running("audit"):
        message_id = new_message_id()
        for _ in range(10):
            await bus.send(Append(subject="s", number=0, key="s"), id=message_id)
        await bus.drained("ledger", "audit")
    await assert_in_order(bus, {"s": 1})
    assert await bus.numbers("s", "audit") == [0]


async def test_events_without_a_handler_are_skipped_and_committed(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered = []
    deliver = Delivery.deliver

    async def counted(self: Delivery, record: Any, topic: str) -> bool:
        delivered.append(topic)
        return await deliver(self, record, topic)

    monkeypatch.setattr(Delivery, "deliver", counted)
    monkeypatch.setitem(CONSUMED, "ledger", (*CONSUMED["ledger"], "ledger.events"))
    async with bus.running():
        await asyncio.gather(*(bus.call(Append(subject=f"s{n}", number=n, events=3)) for n in range(10)))
        await bus.drained("ledger")
    assert len(await bus.records("ledger.events")) == 30
    assert delivered == ["ledger.commands"] * 10
