"""Growth of topics under load: order per key, each message once, callers that see retryable refusals only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from services.operator.client import CommandError
from services.operator.topic_growth import Growth
from shared.bus import topic_growth
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import BusDown, Producer
from shared.bus.topic_growth import ORDER_KEY, GrowthFollower, Order
from shared.bus.topic_reader import TopicReader
from shared.bus.topics import GROWABLE, GROWTH, INSTANCES, TOPICS
from shared.ids import new_message_id
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import CONSUMERS, Append

SENDING = frozenset({"ledger.commands", "ledger.webhooks"})
"""Topics that the gateways of these tests send to."""
SUBJECTS = 24


@dataclass
class Gateway:
    """What a gateway has to do with a growth: a producer, and the follower of the orders."""

    producer: Producer
    follower: GrowthFollower
    refusals: int = 0

    async def send(self, bus: BusHarness, subject: str, number: int) -> None:
        """Send a command as a client does: a refused request is repeated with its key."""
        message = Append(key=subject, subject=subject, number=number)
        envelope = Envelope(
            id=new_message_id(),
            wire=message.wire,
            topic=message.topic,
            key=subject,
            body=encode(message, bus.sealer),
            time=unix_milliseconds(),
        )
        while True:
            try:
                await self.producer.send(envelope)
            except BusDown:
                self.refusals += 1
                await asyncio.sleep(0.05)
            else:
                return


@asynccontextmanager
async def gateway(bus: BusHarness, instance: str) -> AsyncIterator[Gateway]:
    kafka = KafkaConnection(bus.bootstrap)
    producer = Producer(kafka, macs=bus.macs, prefix=bus.prefix, timeout=5)
    reader = TopicReader(kafka, macs=bus.macs)
    follower = GrowthFollower(
        producer,
        reader=reader,
        prefix=bus.prefix,
        service="gateway",
        instance=instance,
        sent_by_gateways=SENDING,
    )
    await producer.start()
    await follower.start()
    announcing = asyncio.create_task(announce(producer, instance))
    try:
        yield Gateway(producer, follower)
    finally:
        announcing.cancel()
        await follower.stop()
        await reader.stop()
        await producer.stop()


async def announce(producer: Producer, instance: str, service: str = "gateway") -> None:
    while True:
        body = {"service": service, "instance": instance, "time": unix_milliseconds(), "skew": {}, "stopped": False}
        key = f"{service} {instance}".encode()
        await producer.send_record(INSTANCES.name, json.dumps(body).encode(), (), key=key)
        await asyncio.sleep(5)


@asynccontextmanager
async def growing(bus: BusHarness, *, seconds: float = 60.0) -> AsyncIterator[tuple[Growth, list[str]]]:
    """Return a growth and the lines that it reports."""
    lines: list[str] = []
    kafka = KafkaConnection(bus.bootstrap)
    growth = Growth(kafka, bus.macs, bus.prefix, CONSUMERS, seconds, lines.append)
    await growth.start()
    try:
        yield growth, lines
    finally:
        await growth.stop()


async def partitions(bus: BusHarness, topic: str = "ledger.commands") -> int:
    """Return the number of partitions that a new producer sees."""
    producer = Producer(KafkaConnection(bus.bootstrap), macs=bus.macs, prefix=bus.prefix)
    await producer.start()
    try:
        return len(await producer.partitions(topic))
    finally:
        await producer.stop()


async def test_growth_under_load_keeps_the_order_of_each_key(bus: BusHarness) -> None:
    """Two gateways send to two instances of a service, whose events another service stores."""
    stopping = asyncio.Event()
    sent: dict[str, int] = {}

    async def client(gateways: list[Gateway], subject: str) -> None:
        number = 0
        while not stopping.is_set():
            await gateways[number % 2].send(bus, subject, number)
            number += 1
            sent[subject] = number

    async with AsyncExitStack() as stack:
        for name in ("ledger", "ledger", "audit"):
            await stack.enter_async_context(bus.running(name, consumers=CONSUMERS))
        gateways = [await stack.enter_async_context(gateway(bus, name)) for name in ("one", "two")]
        clients = [asyncio.create_task(client(gateways, f"subject-{each}")) for each in range(SUBJECTS)]
        await wait_until(lambda: _all_sent(sent, 5))
        growth, lines = await stack.enter_async_context(growing(bus))
        plan = await growth.plan(["ledger.commands", "ledger.events"], 11)
        assert plan.wanted == {"ledger.commands": 11, "ledger.events": 11}
        assert len(plan.processes) == 5
        await growth.grow(plan)
        assert lines[-1] == "all processes continue"
        before = max(sent.values())
        await wait_until(lambda: _all_sent(sent, before + 5))
        stopping.set()
        await asyncio.gather(*clients)
        assert sum(each.refusals for each in gateways)
        await bus.drained("ledger", "audit")
        for subject, count in sent.items():
            assert await bus.listed(subject) == list(range(count))
            assert sorted(await bus.numbers(subject, "audit")) == list(range(count))
        used = {record.partition for record in await bus.records("ledger.commands")}
        assert max(used) >= 4, "no key has moved to a new partition"
        assert await partitions(bus) == 11


async def _all_sent(sent: dict[str, int], number: int) -> bool:
    return len(sent) == SUBJECTS and min(sent.values()) >= number


async def test_a_group_that_is_not_drained_in_time_leaves_everything_as_it_is(bus: BusHarness) -> None:
    async with (
        bus.running(consumers=CONSUMERS) as ledger,
        gateway(bus, "one") as sender,
        growing(bus, seconds=3) as grown,
    ):
        growth, lines = grown
        await sender.producer.send(
            *[
                Envelope(
                    id=new_message_id(),
                    wire=Append.wire,
                    topic=Append.topic,
                    key="stuck",
                    body=encode(Append(key="stuck", subject="stuck", number=1, gated=True), bus.sealer),
                    time=unix_milliseconds(),
                )
            ]
        )
        plan = await growth.plan(["ledger.commands"], 9)
        with pytest.raises(CommandError, match="nothing was changed: 1 messages of ledger"):
            await growth.grow(plan)
        assert lines[-1] == "all processes continue"
        assert await partitions(bus) == 4
        ledger.ledger.gate.set()
        await sender.send(bus, "other", 0)
        await bus.drained()
        assert await bus.listed("other") == [0]


@pytest.mark.slow
async def test_a_process_that_does_not_confirm_is_named(bus: BusHarness) -> None:
    """Such as one of an older release, which knows nothing of a growth."""
    async with bus.running(consumers=CONSUMERS), growing(bus, seconds=2) as (growth, _):
        older = asyncio.create_task(announce(bus.producer, "old-7", "billing"))
        await asyncio.sleep(0)
        await wait_until(lambda: _planned(growth, "billing old-7"))
        with pytest.raises(CommandError, match="not confirmed in time by billing old-7"):
            await growth.grow(await growth.plan(["ledger.commands"], 9))
        older.cancel()
        assert await partitions(bus) == 4


async def _planned(growth: Growth, process: str) -> bool:
    return process in (await growth.plan(["ledger.commands"], 9)).processes


async def test_processes_continue_if_the_command_dies(bus: BusHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a process that starts meanwhile pauses too."""
    monkeypatch.setattr(topic_growth, "LEASE_SECONDS", 2.0)
    order = Order("dead", "hold", {"ledger.commands": 4})
    async with gateway(bus, "one") as first:
        await bus.producer.send_record(GROWTH.name, order.encode(), (), key=ORDER_KEY)
        await wait_until(lambda: _pausing(first))
        async with gateway(bus, "two") as second:
            assert second.follower.pausing
            with pytest.raises(BusDown, match="more partitions"):
                await second.producer.send_record("ledger.webhooks", b"{}", (), key=b"k")
            await first.send(bus, "subject", 0)
            await second.send(bus, "subject", 1)
        assert not first.follower.pausing


async def _pausing(sender: Gateway) -> bool:
    return sender.follower.pausing


async def test_an_interrupted_growth_is_continued_by_the_next(bus: BusHarness) -> None:
    """One of two topics has grown already."""
    async with bus.running(consumers=CONSUMERS), growing(bus) as (growth, _):
        await growth._add_partitions({"ledger.commands": 9})
        plan = await growth.plan(["ledger.commands", "ledger.webhooks"], 9)
        assert plan.wanted == {"ledger.webhooks": 9}
        await growth.grow(plan)
        again = await growth.plan(["ledger.commands", "ledger.webhooks"], 9)
        assert not again.wanted
        with pytest.raises(CommandError, match=r"can't get fewer partitions: ledger.commands has 9"):
            await growth.plan(["ledger.commands"], 8)


def test_only_topics_of_consumer_groups_grow() -> None:
    """A topic that is compacted, or read without a group, would lose records or keep them unread."""
    assert set(GROWABLE) == {
        topic.name for topic in TOPICS if topic.name.endswith((".commands", ".service-commands"))
    } | {"auth.events", "billing.events", "stripe.webhooks"}
