"""A killed service: every accepted command takes effect once and in order, and all its messages are sent."""

import asyncio
import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest

from shared.bus.group_member import SESSION_SECONDS
from tests.faults.conftest import OwnKafka, OwnMongo
from tests.faults.worker_process import worker
from tests.shared.bus_harness import BusHarness, ReceivedReply, wait_until
from tests.shared.sample_services import Append, Relay

SUBJECTS = [str(number) for number in range(6)]
EVENTS = 3


async def client(bus: BusHarness, subject: str, count: int) -> list[ReceivedReply]:
    """Send commands for one subject, each after the reply to the one before."""
    return [
        await bus.call(
            Append(subject=subject, number=number, key=subject, events=EVENTS, later=0.1 if number % 5 == 4 else None),
            seconds=60,
        )
        for number in range(count)
    ]


async def assert_nothing_lost_or_repeated(bus: BusHarness, count: int) -> None:
    """Assert the promises E1, E3, E4 and E5: no loss, one effect, no lag, in order."""
    await bus.drained("ledger", "audit")

    async def no_timer_is_left() -> bool:
        return await bus.database()["timers"].count_documents({}) == 0

    await wait_until(no_timer_is_left, 60, "delayed messages are left")
    await bus.drained("audit")
    for subject in SUBJECTS:
        assert await bus.listed(subject) == list(range(count))
        assert sorted(await bus.numbers(subject)) == list(range(count))
        stored = await bus.numbers(subject, "audit")
        assert sorted(stored) == sorted([*range(count)] * EVENTS), f"{subject} does not have each event once"
    rows = await bus.rows()
    published = {message["id"] for row in rows for message in row["messages"]}
    sent = [dict(record.headers)["id"].decode() for record in await bus.records("ledger.events")]
    assert published <= set(sent), "a message of an inbox row was not sent"
    assert len({row["_id"] for row in rows}) == count * len(SUBJECTS)
    assert await bus.records("ledger.commands.dead") == []
    assert await bus.records("ledger.events.dead") == []


@pytest.mark.parametrize("point", ["V1:4", "V2:4", "V3:6", "V4:6"])
async def test_a_crash_around_the_commit_loses_and_repeats_nothing(bus: BusHarness, point: str, tmp_path: Path) -> None:
    async with worker("ledger", bus.environment(), tmp_path) as ledger, bus.running("audit"):
        await ledger.start(NEST_CRASH_AT=point)
        clients = [asyncio.create_task(client(bus, subject, 5)) for subject in SUBJECTS]
        await ledger.crashed()
        await ledger.start()
        replies = [reply for received in await asyncio.gather(*clients) for reply in received]
        assert {reply.kind for reply in replies} == {"done"}
        assert sorted(reply.body["entries"] for reply in replies) == sorted([*range(1, 6)] * len(SUBJECTS))
        await assert_nothing_lost_or_repeated(bus, 5)
    if point.startswith(("V3", "V4")):
        sent = [dict(record.headers)["id"] for record in await bus.records("ledger.events")]
        assert len(sent) > len(set(sent)), "no message was sent twice: the fault did not happen"


async def test_a_forwarded_command_is_replied_to_after_a_crash(bus: BusHarness, tmp_path: Path) -> None:
    async with worker("ledger", bus.environment(), tmp_path) as ledger:
        await ledger.start(NEST_CRASH_AT="V2")
        call = asyncio.create_task(bus.call(Relay(subject="s", number=7, key="s"), seconds=60))
        await ledger.crashed()
        await ledger.start()
        assert (await call).body == {"entries": 1}
        await bus.drained()
    assert await bus.numbers("s") == [7]


async def test_a_crash_during_a_timer_sends_its_message_twice_with_one_effect(bus: BusHarness, tmp_path: Path) -> None:
    async with worker("ledger", bus.environment(), tmp_path) as ledger, bus.running("audit"):
        await ledger.start(NEST_CRASH_AT="T1")
        await bus.call(Append(subject="s", number=1, key="s", later=0.1), seconds=30)
        await ledger.crashed()
        (row,) = await bus.database()["timers"].find().to_list()
        # The next process finds the row after the lease of the dead one; end the lease now.
        await bus.database()["timers"].update_one({"_id": row["_id"]}, {"$currentDate": {"at": True}})
        await ledger.start()

        async def deleted() -> bool:
            return await bus.database()["timers"].count_documents({}) == 0

        await wait_until(deleted, 30)
        await bus.drained("audit")
    sent = [dict(record.headers)["id"].decode() for record in await bus.records("ledger.events")]
    assert sent == [row["_id"]] * 2
    assert await bus.numbers("s", "audit") == [1]


async def test_kills_at_random_times_lose_and_repeat_nothing(
    bus: BusHarness, tmp_path: Path, chaos: random.Random, rounds: int
) -> None:
    count = 10 + 6 * rounds
    async with worker("ledger", bus.environment(), tmp_path) as ledger, bus.running("audit"):
        await ledger.start()
        clients = [asyncio.create_task(client(bus, subject, count)) for subject in SUBJECTS]
        pids = [ledger.pid]
        for _ in range(rounds):
            wanted = len(await bus.rows()) + chaos.randint(1, 20)
            await wait_until(partial(has_rows, bus, wanted), 60, "no progress between kills")
            await ledger.kill()
            await ledger.start()
            pids.append(ledger.pid)
        assert len(set(pids)) == rounds + 1
        replies = [reply for received in await asyncio.gather(*clients) for reply in received]
        assert {reply.kind for reply in replies} == {"done"}
        await assert_nothing_lost_or_repeated(bus, count)


async def has_rows(bus: BusHarness, count: int) -> bool:
    return len(await bus.rows()) >= count


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [13.0])
async def test_a_process_that_was_frozen_loses_and_repeats_nothing(
    bus: BusHarness, tmp_path: Path, seconds: float
) -> None:
    """Its partitions are reassigned meanwhile, and its unfinished messages are committed too late."""
    async with worker("ledger", bus.environment(), tmp_path) as frozen, bus.running("audit"):
        await frozen.start()
        await bus.call(Append(subject="first", number=0, key="first"), seconds=30)
        clients = [asyncio.create_task(client(bus, subject, 40)) for subject in SUBJECTS]
        await wait_until(lambda: has_rows(bus, 20), 30)
        async with bus.running() as other:
            await bus.call(Append(subject="second", number=0, key="second"), seconds=30)  # the rebalance is over
            with frozen.frozen():
                await asyncio.sleep(seconds)
                assert other.ledger.runs, "no other instance took over: the fault did not happen"
            replies = [reply for received in await asyncio.gather(*clients) for reply in received]
            assert {reply.kind for reply in replies} == {"done"}
            await bus.drained("ledger", "audit")
    for subject in SUBJECTS:
        assert await bus.listed(subject) == list(range(40))
        assert sorted(await bus.numbers(subject, "audit")) == sorted([*range(40)] * EVENTS)


async def test_a_machine_that_sleeps_loses_and_repeats_nothing(
    own_kafka: OwnKafka, own_mongo: OwnMongo, tmp_path: Path, chaos: random.Random, rounds: int
) -> None:
    """Every process is suspended for longer than a session in Kafka, and goes on at another moment."""
    kafka, mongo = await asyncio.gather(own_kafka(), own_mongo())
    async with (
        BusHarness(kafka.bootstrap, mongo.url, "p.", "nest_") as bus,
        worker("ledger", bus.environment(), tmp_path) as ledger,
        worker("audit", bus.environment(), tmp_path) as audit,
    ):
        await asyncio.gather(ledger.start(), audit.start())
        clients = [asyncio.create_task(client(bus, subject, 40 * rounds)) for subject in SUBJECTS]
        for number in range(rounds):
            await wait_until(partial(has_rows, bus, number * 40 * len(SUBJECTS) + chaos.randrange(20, 100)), 60)
            pids = [ledger.pid, audit.pid, *(each.pid for each in (kafka, mongo) if each.pid)]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(SESSION_SECONDS + chaos.uniform(1, 8))
            chaos.shuffle(pids)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(chaos.uniform(0, 2))
        replies = [reply for received in await asyncio.gather(*clients) for reply in received]
        assert {reply.kind for reply in replies} == {"done"}
        await assert_nothing_lost_or_repeated(bus, 40 * rounds)
        assert "consumer stopped" not in ledger.log + audit.log


async def test_a_stopped_process_finishes_its_messages(bus: BusHarness, tmp_path: Path) -> None:
    async with worker("ledger", bus.environment(), tmp_path) as ledger:
        await ledger.start()
        await bus.call(Append(subject="s", number=0, key="s"), seconds=30)
        slow = asyncio.create_task(bus.call(Append(subject="s", number=1, key="s", pause=1), seconds=30))
        await asyncio.sleep(0.5)  # it is running
        assert await ledger.stop() == 0
        assert (await slow).kind == "done"
    assert await bus.lag() == 0
