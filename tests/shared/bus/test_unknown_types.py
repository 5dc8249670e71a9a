"""Two releases side by side: messages of a type that only the newer one knows."""

import asyncio
from typing import Any

import pytest
from prometheus_client import REGISTRY

from shared.bus.handling import Handlers
from shared.bus.unknown_types import PAUSES
from tests.shared.bus_harness import BusHarness, RunningService, wait_until
from tests.shared.sample_services import LEDGER, Append, Relay

OLD: Handlers = {message: handler for message, handler in LEDGER.items() if message is not Relay}
"""Handlers of a release that does not know ``Relay``."""


def unknown_waiting() -> float:
    return REGISTRY.get_sample_value("nest_unknown_type_messages", {"service": "ledger"}) or 0


def waiting(count: int) -> Any:
    async def wait() -> bool:
        return unknown_waiting() == count

    return wait


async def test_messages_of_an_unknown_type_wait_and_other_keys_go_on(bus: BusHarness) -> None:
    async with bus.running(in_flight=4, handlers=OLD) as old:
        for number in range(40):
            await bus.send(Relay(subject=f"u{number}", number=1, key=f"u{number}"))
        behind = await bus.send(Append(subject="u0", number=2, key="u0"))
        for number in range(20):
            assert (await bus.call(Append(subject=f"k{number}", number=0, key=f"k{number}"), seconds=10)).kind == "done"
        await wait_until(waiting(40))
        reply = await bus.call(Relay(subject="called", number=1, key="called"), seconds=2)
        assert (reply.kind, reply.body["code"]) == ("unavailable", "unavailable")
        assert old.ledger.runs[behind.id] == 0
        assert old.service.problems() == []
        assert await bus.records("ledger.commands.dead") == []


async def test_newer_instance_handles_what_landed_at_the_older_one(bus: BusHarness) -> None:
    subjects = [f"u{number}" for number in range(24)]
    async with bus.running() as new:
        async with bus.running(handlers=OLD) as old:
            await wait_until(lambda: share(new, old))
            for number in range(3):
                for subject in subjects:
                    await bus.send(Append(subject=subject, number=2 * number, key=subject))
                    await bus.send(Relay(subject=subject, number=2 * number + 1, key=subject))
            await wait_until(waits_here)
        # The old instance is replaced: its partitions move to the new one.
        await bus.drained()
    for subject in subjects:
        assert sorted(await bus.numbers(subject)) == list(range(6)), subject
    assert await bus.records("ledger.commands.dead") == []
    assert unknown_waiting() == 0


async def share(first: RunningService, second: RunningService) -> bool:
    return all(
        any("commands" in each.topic for each in running.consumer.assigned) and len(running.consumer.assigned) == 3
        for running in (first, second)
    )


async def waits_here() -> bool:
    return unknown_waiting() > 0


@pytest.mark.slow
async def test_rolling_restart_to_a_newer_release_loses_and_dead_letters_nothing(bus: BusHarness) -> None:
    counts = dict.fromkeys((f"u{number}" for number in range(12)), 0)
    stopping = asyncio.Event()

    async def load() -> None:
        while not stopping.is_set():
            for subject, number in counts.items():
                message = Relay if number % 3 else Append
                await bus.send(message(subject=subject, number=number, key=subject))
                counts[subject] += 1
            await asyncio.sleep(0.05)

    sending = asyncio.create_task(load())
    instances = [bus.running(handlers=OLD) for _ in range(3)]
    for instance in instances:
        await instance.__aenter__()
    for number in range(3):
        newer = bus.running()
        await newer.__aenter__()
        await instances[number].__aexit__(None, None, None)
        instances[number] = newer
    stopping.set()
    await sending
    await bus.drained()
    for instance in instances:
        await instance.__aexit__(None, None, None)
    for subject, count in counts.items():
        assert sorted(await bus.numbers(subject)) == list(range(count)), subject
    assert await bus.records("ledger.commands.dead") == []


@pytest.mark.parametrize(
    ("topic", "wire"),
    [
        ("ledger.commands", b"ledger.from-the-future"),
        pytest.param("ledger.webhooks", b"ledger.from-the-future", marks=pytest.mark.slow),
    ],
)
async def test_unknown_type_becomes_a_dead_letter_after_hours(bus: BusHarness, topic: str, wire: bytes) -> None:
    async with bus.running(unknown_type_hours=1.5 / 3600) as running:
        for _ in range(11):
            await bus.put_record(topic, b"{}", [("type", wire), ("id", b"1"), ("time", b"1")], partition=0)
        await wait_until(waits_here)
        await bus.drained()
        assert running.consumer.pauses.waiting == frozenset(), "ten of them are no fault of this release"
    letters = await bus.dead_letters(topic)
    assert {(letter.reason, letter.detail) for letter in letters} == {
        ("undecodable", "ledger does not know ledger.from-the-future")
    }
    assert len(letters) == 11


async def test_unknown_event_waits_since_the_newer_release_may_follow_it(bus: BusHarness) -> None:
    headers = [("type", b"ledger.from-the-future"), ("id", b"1"), ("time", b"1")]
    async with bus.running("audit"):
        await bus.put_record("ledger.events", b"{}", headers, key=b"k")
        await asyncio.sleep(PAUSES[0])
    assert await bus.lag("audit") == 1
    assert await bus.records("ledger.events.dead") == []


@pytest.mark.slow
async def test_too_many_of_them_hold_back_their_partition_alone(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.partition_pauses.MAX_POSTPONED", 10)
    headers = [("type", b"ledger.from-the-future"), ("id", b"1"), ("time", b"1")]
    async with bus.running(in_flight=4, unknown_type_hours=3 / 3600) as running:
        for number in range(40):
            await bus.put_record("ledger.commands", b"{}", headers, key=b"%d" % number, partition=0)

        async def held() -> bool:
            return 10 <= unknown_waiting() < 20

        await wait_until(held)
        (other, *_) = [key for key in map(str, range(99)) if await bus.partition_of(key) == 1]
        assert (await bus.call(Append(subject="s", number=1, key=other), seconds=10)).kind == "done"
        assert running.service.problems() == []
        await bus.drained()
    assert len(await bus.dead_letters()) == 40
