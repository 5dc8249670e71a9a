"""Metrics of messages in flight and of the oldest one, on a real Kafka."""

import time

from prometheus_client import REGISTRY

from shared.bus.oldest_message import OldestMessage
from tests.shared.bus.test_watchdog import get_stuck
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import Append


def in_flight() -> float | None:
    return REGISTRY.get_sample_value("nest_messages_in_flight", {"service": "ledger"})


async def test_nothing_is_in_flight_nor_old_when_the_service_is_idle(bus: BusHarness) -> None:
    async with bus.running() as running:
        for number in range(3):
            await bus.call(Append(subject="s", number=number, key="s"))

        async def idle() -> bool:
            return in_flight() == 0

        await wait_until(idle)
        slow = await bus.send(Append(subject="slow", number=0, key="slow", gated=True))

        async def taken() -> bool:
            return in_flight() == 1 and bool(running.ledger.runs[slow.id])

        await wait_until(taken)
        running.ledger.gate.set()
        await wait_until(idle)
        oldest = OldestMessage(running.consumer, service="ledger")
        await oldest.look_up()
        assert oldest.age() == 0


async def test_messages_that_are_not_fetched_count_from_when_they_were_sent(bus: BusHarness) -> None:
    async with bus.running() as running:
        await bus.call(Append(subject="s", number=0, key="s"))
        await bus.drained()
        await get_stuck(running)
        sent = time.time()
        await bus.send(Append(subject="s", number=1, key="s"))
        oldest = OldestMessage(running.consumer, service="ledger", seconds=0.1)
        oldest.start()

        async def seen() -> bool:
            return oldest.age() > 0.5

        await wait_until(seen)
        assert oldest.age() <= time.time() - sent + 0.1
        await oldest.stop()


async def test_message_that_waits_since_before_the_start_has_its_whole_age(bus: BusHarness) -> None:
    for _ in range(12):
        await bus.put_record("ledger.commands", b"poison", partition=0)
    async with bus.running(in_flight=1) as running:

        async def paused() -> bool:
            return bool(running.consumer.pauses.waiting)

        await wait_until(paused)
        await wait_until(lambda: lag_is(bus, 2))
    async with bus.running() as running:
        await wait_until(paused)
        oldest = OldestMessage(running.consumer, service="ledger")

        async def seen() -> bool:
            await oldest.look_up()
            return oldest.age() > 0

        await wait_until(seen)


async def lag_is(bus: BusHarness, count: int) -> bool:
    return await bus.lag() == count
