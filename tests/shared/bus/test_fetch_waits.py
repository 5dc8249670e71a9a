"""Waits of fetches: short while records arrive, long in an idle topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.fetch import FetchRequest

from shared.bus.aiokafka_patch import patch_aiokafka
from shared.bus.fetch_waits import FIRST_WAIT_MILLISECONDS, fetched_end
from tests.stack import eventually

LONGEST = 4 * FIRST_WAIT_MILLISECONDS
GROWING = [FIRST_WAIT_MILLISECONDS, 2 * FIRST_WAIT_MILLISECONDS, LONGEST, LONGEST]


@pytest.fixture
def waits() -> list[int]:
    """The waits of the consumer's fetches, milliseconds."""
    return []


@pytest.fixture
async def consumer(
    topic_prefix: str, kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, waits: list[int]
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer of two empty partitions."""
    patch_aiokafka()
    topic = f"{topic_prefix}fetched"
    await kafka_admin.create_topics([NewTopic(topic, 2, 1)])
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=LONGEST
    )
    send = consumer._client.send

    async def noted(node_id: Any, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            waits.append(request._max_wait_ms)
        return await send(node_id, request, **options)

    consumer._client.send = noted
    await consumer.start()
    consumer.assign([TopicPartition(topic, number) for number in range(2)])
    yield consumer
    await consumer.stop()


async def test_waits_grow_until_a_record_ends_one(
    consumer: AIOKafkaConsumer, waits: list[int], kafka_bootstrap: str
) -> None:
    first, _ = sorted(consumer.assignment())
    await eventually(lambda: len(waits) >= len(GROWING))
    assert waits[: len(GROWING)] == GROWING
    assert fetched_end(consumer, first) == 0
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    await producer.start()
    try:
        count = len(waits)
        await producer.send_and_wait(first.topic, b"record", partition=first.partition)
        record = await asyncio.wait_for(consumer.getone(), 30)
        assert record.value == b"record"
    finally:
        await producer.stop()
    await eventually(lambda: fetched_end(consumer, first) == 1)
    await eventually(lambda: FIRST_WAIT_MILLISECONDS in waits[count:])


async def test_a_fetch_that_leaves_out_a_partition_waits_briefly(consumer: AIOKafkaConsumer, waits: list[int]) -> None:
    first, second = sorted(consumer.assignment())
    consumer.pause(second)
    # Some fetches may have been sent before the pause.
    before = len(waits)
    await eventually(lambda: len(waits) >= before + 3)
    waits.clear()
    await eventually(lambda: len(waits) >= len(GROWING))
    assert set(waits) == {FIRST_WAIT_MILLISECONDS}
    waits.clear()
    consumer.resume(second)
    await eventually(lambda: LONGEST in waits)
    assert fetched_end(consumer, first) == 0


async def test_other_requests_and_a_new_assignment_do_not_wait_for_a_fetch(
    consumer: AIOKafkaConsumer, waits: list[int], kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = sorted(consumer.assignment())
    monkeypatch.setattr(consumer._fetcher, "_longest_wait_ms", 20_000)
    consumer.assign([second])
    async with asyncio.timeout(30):
        await consumer.position(second)
        monkeypatch.setattr(consumer._fetcher, "_fetch_max_wait_ms", 20_000)
        await eventually(lambda: waits[-1:] == [20_000])
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    await producer.start()
    try:
        async with asyncio.timeout(15):
            await consumer.end_offsets([second])
            consumer.assign([first])
            await consumer.position(first)
            await producer.send_and_wait(first.topic, b"record", partition=first.partition)
            assert (await consumer.getone()).value == b"record"
    finally:
        await producer.stop()


async def test_assignments_in_quick_succession_get_their_positions_at_once(consumer: AIOKafkaConsumer) -> None:
    partitions = sorted(consumer.assignment())
    async with asyncio.timeout(30):
        for turns in range(40):
            consumer.assign(partitions)
            for _ in range(turns):
                await asyncio.sleep(0)
            consumer.assign(partitions)
            for partition in partitions:
                await consumer.position(partition)


async def test_the_end_of_a_partition_without_a_response_is_unknown(consumer: AIOKafkaConsumer) -> None:
    assert fetched_end(consumer, TopicPartition("another", 0)) is None
