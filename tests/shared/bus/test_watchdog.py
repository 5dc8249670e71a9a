"""A consumer that hangs is found; a quiet one, a busy one and one without Kafka are not."""

import asyncio
import time
from contextlib import suppress

from shared.bus.watchdog import Watchdog
from tests.shared.bus_harness import RunningService, Stand, until
from tests.shared.sample_services import Append


def watchdog(stand: Stand, running: RunningService, *, seconds: float = 0.5, bootstrap: str | None = None) -> Watchdog:
    return Watchdog(
        running.bus,
        bootstrap or stand.bootstrap,
        stuck=lambda: running.stuck.append(True),
        stuck_seconds=seconds,
        look_seconds=0.1,
    )


async def hang(running: RunningService) -> None:
    """End the task that takes records, as a bug in the client library does."""
    for task in running.bus._subscriber.tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def found(watching: Watchdog) -> bool:
    return await watching.look()


async def test_a_consumer_that_takes_nothing_while_records_wait_is_found(stand: Stand) -> None:
    async with stand.running() as running:
        await stand.call(Append(subject="s", number=0, key="s"))
        await stand.settled()
        await hang(running)
        watching = watchdog(stand, running)
        watching.start()
        await asyncio.sleep(1.5)
        assert running.stuck == [], "nothing waits yet"
        await stand.order(Append(subject="s", number=1, key="s"))

        async def called() -> bool:
            return bool(running.stuck)

        await until(called, 20, "the hanging consumer was not found")
        await watching.stop()
    # Its place is taken by a new process, which goes on where it stopped.
    async with stand.running():
        await stand.settled()
    assert await stand.listed("s") == [0, 1]


async def test_a_record_that_comes_after_a_long_silence_is_given_time(stand: Stand) -> None:
    async with stand.running() as running:
        await stand.call(Append(subject="s", number=0, key="s"))
        await stand.settled()
        watching = watchdog(stand, running)
        assert not await watching.look()
        await asyncio.sleep(1)
        await hang(running)
        await stand.order(Append(subject="s", number=1, key="s"))
        assert not await watching.look(), "the record has only just come"
        await until(lambda: found(watching), 20, "the hanging consumer was not found")


async def test_a_process_that_was_frozen_is_given_time_to_go_on(stand: Stand) -> None:
    async with stand.running() as running:
        await stand.call(Append(subject="s", number=0, key="s"))
        await stand.settled()
        await hang(running)
        await stand.order(Append(subject="s", number=1, key="s"))
        watching = watchdog(stand, running)
        for _ in range(2):
            assert not await watching.look()
        time.sleep(2)  # noqa: ASYNC251 -- nothing at all runs meanwhile
        assert not await watching.look(), "the time in which nothing could run was counted"
        await until(lambda: found(watching), 20, "the hanging consumer was not found")


async def test_a_quiet_consumer_is_left_alone(stand: Stand) -> None:
    async with stand.running() as running:
        await stand.call(Append(subject="s", number=0, key="s"))
        await stand.settled()
        watching = watchdog(stand, running)
        for _ in range(8):
            assert not await watching.look()
            await asyncio.sleep(0.2)


async def test_a_consumer_that_never_got_a_record_is_left_alone(stand: Stand) -> None:
    async with stand.running() as running:
        watching = watchdog(stand, running)
        for _ in range(8):
            assert not await watching.look()
            await asyncio.sleep(0.2)


async def test_a_consumer_with_a_long_message_under_way_is_left_alone(stand: Stand) -> None:
    async with stand.running(in_flight=1) as running:
        for number in range(2):
            await stand.order(Append(subject="s", number=number, key="s", pause=1.5))

        async def under_way() -> bool:
            return bool(running.ledger.runs)

        await until(under_way)
        watching = watchdog(stand, running)
        while await stand.lag():
            assert not await watching.look()
            await asyncio.sleep(0.1)


async def test_a_consumer_whose_kafka_does_not_answer_is_left_alone(stand: Stand) -> None:
    async with stand.running() as running:
        await stand.call(Append(subject="s", number=0, key="s"))
        await stand.settled()
        await hang(running)
        await stand.order(Append(subject="s", number=1, key="s"))
        nobody = watchdog(stand, running, bootstrap="127.0.0.1:9")
        for _ in range(4):
            assert not await nobody.look()
            await asyncio.sleep(0.3)


async def test_a_consumer_that_has_given_up_waits_for_a_human(stand: Stand) -> None:
    async with stand.running() as running:
        for _ in range(40):
            await stand.put("ledger.commands", b"poison", partition=0)

        async def complains() -> bool:
            return bool(running.service.problems())

        await until(complains)
        await stand.order(Append(subject="s", number=0, key="s"))
        watching = watchdog(stand, running)
        for _ in range(6):
            assert not await watching.look()
            await asyncio.sleep(0.2)


async def test_a_healthy_instance_does_not_end_for_one_that_hangs(stand: Stand) -> None:
    """What the other one leaves lying is lag of the same group."""
    async with stand.running() as healthy, stand.running() as hanging:

        def partitions(of: RunningService) -> set[int]:
            return {partition.partition for partition in of.bus.assigned if "commands" in partition.topic}

        async def shared_out() -> bool:
            # While the group is still sharing out, the one that was there first has all of them.
            ours, theirs = partitions(healthy), partitions(hanging)
            return bool(ours and theirs) and ours.isdisjoint(theirs)

        await until(shared_out)
        theirs = partitions(hanging)
        await hang(hanging)
        keys = [key for key in map(str, range(100)) if await stand.partition_of(key) in theirs]
        await stand.order(Append(subject="s", number=0, key=keys[0]))
        one, other = watchdog(stand, healthy), watchdog(stand, hanging)
        await asyncio.sleep(0.6)
        await until(lambda: found(other), 20, "the hanging one was not found")
        for _ in range(6):
            assert not await one.look(), "the healthy one would have been ended"
            await asyncio.sleep(0.2)


async def test_a_stopped_watchdog_looks_no_more(stand: Stand) -> None:
    async with stand.running() as running:
        watching = watchdog(stand, running, seconds=0.01)
        watching.start()
        await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await watching.stop()
