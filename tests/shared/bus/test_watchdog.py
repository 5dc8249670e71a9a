"""A consumer that hangs is found; a quiet one, a busy one and one without Kafka are not."""

import asyncio
import time
from contextlib import suppress

from shared.bus.watchdog import Watchdog
from tests.shared.bus_harness import BusHarness, RunningService, wait_until
from tests.shared.sample_services import Append


def watchdog(
    bus: BusHarness, running: RunningService, *, seconds: float = 0.5, bootstrap: str | None = None
) -> Watchdog:
    return Watchdog(
        running.consumer,
        bootstrap or bus.bootstrap,
        on_stuck=lambda: running.stuck.append(True),
        stuck_seconds=seconds,
        check_seconds=0.1,
    )


async def hang(running: RunningService) -> None:
    """End the task that takes records, as a bug in the client library does."""
    for task in running.consumer._subscriber.tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def found(watching: Watchdog) -> bool:
    return await watching.is_stuck()


async def test_a_consumer_with_lag_and_no_progress_is_stuck(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        await hang(running)
        watching = watchdog(bus, running)
        watching.start()
        await asyncio.sleep(1.5)
        assert running.stuck == [], "nothing waits yet"
        await bus.send(Append(subject="s", number=1, key="s"))

        async def called() -> bool:
            return bool(running.stuck)

        await wait_until(called, 20, "the hanging consumer was not found")
        await watching.stop()
    # Its place is taken by a new process, which goes on where it stopped.
    async with bus.running():
        await bus.drained()
    assert await bus.listed("s") == [0, 1]


async def test_a_record_after_a_long_silence_does_not_count_as_stuck_at_once(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        watching = watchdog(bus, running)
        assert not await watching.is_stuck()
        await asyncio.sleep(1)
        await hang(running)
        await bus.send(Append(subject="s", number=1, key="s"))
        assert not await watching.is_stuck(), "the record has only just come"
        await wait_until(lambda: found(watching), 20, "the hanging consumer was not found")


async def test_the_time_in_which_a_process_was_frozen_does_not_count(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        await hang(running)
        await bus.send(Append(subject="s", number=1, key="s"))
        watching = watchdog(bus, running)
        for _ in range(2):
            assert not await watching.is_stuck()
        time.sleep(2)  # noqa: ASYNC251 -- nothing at all runs meanwhile
        assert not await watching.is_stuck(), "the time in which nothing could run was counted"
        await wait_until(lambda: found(watching), 20, "the hanging consumer was not found")


async def test_a_consumer_without_lag_is_not_stuck(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        watching = watchdog(bus, running)
        for _ in range(8):
            assert not await watching.is_stuck()
            await asyncio.sleep(0.2)


async def test_a_consumer_of_an_empty_topic_is_not_stuck(bus: BusHarness) -> None:
    async with bus.running() as running:
        watching = watchdog(bus, running)
        for _ in range(8):
            assert not await watching.is_stuck()
            await asyncio.sleep(0.2)


async def test_a_consumer_with_a_slow_message_is_not_stuck(bus: BusHarness) -> None:
    async with bus.running(in_flight=1) as running:
        for number in range(2):
            await bus.send(Append(subject="s", number=number, key="s", pause=1.5))

        async def under_way() -> bool:
            return bool(running.ledger.runs)

        await wait_until(under_way)
        watching = watchdog(bus, running)
        while await bus.lag():
            assert not await watching.is_stuck()
            await asyncio.sleep(0.1)


async def test_a_consumer_during_a_kafka_outage_is_not_stuck(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        await hang(running)
        await bus.send(Append(subject="s", number=1, key="s"))
        nobody = watchdog(bus, running, bootstrap="127.0.0.1:9")
        for _ in range(4):
            assert not await nobody.is_stuck()
            await asyncio.sleep(0.3)


async def test_a_consumer_with_a_fault_is_not_stuck(bus: BusHarness) -> None:
    async with bus.running() as running:
        for _ in range(40):
            await bus.put_record("ledger.commands", b"poison", partition=0)

        async def complains() -> bool:
            return bool(running.service.problems())

        await wait_until(complains)
        await bus.send(Append(subject="s", number=0, key="s"))
        watching = watchdog(bus, running)
        for _ in range(6):
            assert not await watching.is_stuck()
            await asyncio.sleep(0.2)


async def test_lag_of_another_instance_does_not_count(bus: BusHarness) -> None:
    """What the other one leaves lying is lag of the same group."""
    async with bus.running() as healthy, bus.running() as hanging:

        def partitions(of: RunningService) -> set[int]:
            return {partition.partition for partition in of.consumer.assigned if "commands" in partition.topic}

        async def shared_out() -> bool:
            # While the group is still sharing out, the one that was there first has all of them.
            ours, theirs = partitions(healthy), partitions(hanging)
            return bool(ours and theirs) and ours.isdisjoint(theirs)

        await wait_until(shared_out)
        theirs = partitions(hanging)
        await hang(hanging)
        keys = [key for key in map(str, range(100)) if await bus.partition_of(key) in theirs]
        await bus.send(Append(subject="s", number=0, key=keys[0]))
        one, other = watchdog(bus, healthy), watchdog(bus, hanging)
        await asyncio.sleep(0.6)
        await wait_until(lambda: found(other), 20, "the hanging one was not found")
        for _ in range(6):
            assert not await one.is_stuck(), "the healthy one would have been ended"
            await asyncio.sleep(0.2)


async def test_a_stopped_watchdog_checks_no_more(bus: BusHarness) -> None:
    async with bus.running() as running:
        watching = watchdog(bus, running, seconds=0.01)
        watching.start()
        await asyncio.sleep(0.3)
        async with asyncio.timeout(5):
            await watching.stop()
