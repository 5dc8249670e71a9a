"""Detection of stuck consumers."""

import asyncio
import time
from contextlib import suppress

import pytest

from shared.bus.kafka_connection import KafkaConnection
from shared.bus.watchdog import Watchdog
from tests.shared.bus_harness import BusHarness, RunningService, wait_until
from tests.shared.sample_services import Append
from tests.stack import eventually


def watchdog(
    bus: BusHarness, running: RunningService, *, seconds: float = 0.5, bootstrap: str | None = None
) -> Watchdog:
    return Watchdog(
        running.consumer,
        KafkaConnection(bootstrap or bus.bootstrap),
        on_stuck=lambda: running.stuck.append(True),
        stuck_seconds=seconds,
        check_seconds=0.1,
    )


async def get_stuck(running: RunningService) -> None:
    """End the task that fetches records, as the bugs of aiokafka do."""
    for task in running.consumer._subscriber.tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def not_caught_up(running: RunningService) -> bool:
    return not await running.consumer.caught_up()


async def is_stuck(watching: Watchdog) -> bool:
    return await watching.is_stuck()


async def test_a_consumer_with_lag_and_no_progress_is_stuck(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        await get_stuck(running)
        watching = watchdog(bus, running)
        watching.start()
        await asyncio.sleep(1.5)
        assert running.stuck == [], "there is no lag yet"
        await bus.send(Append(subject="s", number=1, key="s"))

        async def called() -> bool:
            return bool(running.stuck)

        await wait_until(called, 20, "the stuck consumer was not detected")
        await watching.stop()
    # A new process continues at the committed offset.
    async with bus.running():
        await bus.drained()
    assert await bus.listed("s") == [0, 1]


async def test_a_record_after_a_long_silence_does_not_count_as_stuck_at_once(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        watching = watchdog(bus, running)
        await eventually(running.consumer.caught_up)
        assert not await watching.is_stuck()
        await asyncio.sleep(1)
        await get_stuck(running)
        await bus.send(Append(subject="s", number=1, key="s"))
        assert not await watching.is_stuck(), "the record has only just arrived"
        await eventually(lambda: not_caught_up(running))
        await wait_until(lambda: is_stuck(watching), 20, "the stuck consumer was not detected")


async def test_the_time_in_which_a_process_was_frozen_does_not_count(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        await get_stuck(running)
        await bus.send(Append(subject="s", number=1, key="s"))
        watching = watchdog(bus, running)
        for _ in range(2):
            assert not await watching.is_stuck()
        time.sleep(2)  # noqa: ASYNC251 -- it blocks the whole process
        assert not await watching.is_stuck(), "the time in which the process was frozen was counted"
        await wait_until(lambda: is_stuck(watching), 20, "the stuck consumer was not detected")


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

        async def started() -> bool:
            return bool(running.ledger.runs)

        await wait_until(started)
        watching = watchdog(bus, running)
        while await bus.lag():
            assert not await watching.is_stuck()
            await asyncio.sleep(0.1)


async def test_a_consumer_during_a_kafka_outage_is_not_stuck(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        await get_stuck(running)
        await bus.send(Append(subject="s", number=1, key="s"))
        watching = watchdog(bus, running, bootstrap="127.0.0.1:9")
        for _ in range(4):
            assert not await watching.is_stuck()
            await asyncio.sleep(0.3)


@pytest.mark.parametrize(
    "headers",
    [[], [("type", b"ledger.from-the-future"), ("id", b"1"), ("time", b"1")]],
    ids=["a paused partition", "a message of an unknown type"],
)
async def test_a_consumer_whose_records_are_known_to_wait_is_not_stuck(
    bus: BusHarness, headers: list[tuple[str, bytes]]
) -> None:
    async with bus.running(in_flight=4) as running:
        for _ in range(20):
            await bus.put_record("ledger.commands", b"poison", headers, partition=0)

        async def records_wait() -> bool:
            return bool(running.consumer.pauses.waiting)

        await wait_until(records_wait)
        watching = watchdog(bus, running)
        for _ in range(6):
            assert not await watching.is_stuck()
            await asyncio.sleep(0.2)


async def test_lag_of_another_instance_does_not_count(bus: BusHarness) -> None:
    """The lag of the stuck instance belongs to the same consumer group."""
    async with bus.running() as healthy, bus.running() as stuck:

        def partitions(of: RunningService) -> set[int]:
            return {partition.partition for partition in of.consumer.assigned if "commands" in partition.topic}

        async def balanced() -> bool:
            # Before the rebalance the first instance has all partitions.
            ours, theirs = partitions(healthy), partitions(stuck)
            return bool(ours and theirs) and ours.isdisjoint(theirs)

        await wait_until(balanced)
        theirs = partitions(stuck)
        await get_stuck(stuck)
        keys = [key for key in map(str, range(100)) if await bus.partition_of(key) in theirs]
        await bus.send(Append(subject="s", number=0, key=keys[0]))
        of_healthy, of_stuck = watchdog(bus, healthy), watchdog(bus, stuck)
        await asyncio.sleep(0.6)
        await wait_until(lambda: is_stuck(of_stuck), 20, "the stuck consumer was not detected")
        for _ in range(6):
            assert not await of_healthy.is_stuck(), "the healthy instance would have been ended"
            await asyncio.sleep(0.2)


async def test_a_stopped_watchdog_checks_no_more() -> None:
    checks = 0

    async def is_stuck() -> bool:
        nonlocal checks
        checks += 1
        return False

    watching = Watchdog(None, "127.0.0.1:9", check_seconds=0.01)  # type: ignore[arg-type]  # only ``is_stuck`` uses it
    watching.is_stuck = is_stuck  # type: ignore[method-assign]
    watching.start()
    await eventually(lambda: checks > 1)
    async with asyncio.timeout(30):
        await watching.stop()
    after = checks
    await asyncio.sleep(0.05)
    assert checks == after
