"""What does the machine allow at best? An echo over Kafka, an insert and a transaction, without any of Nest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from bson import ObjectId
from pymongo import AsyncMongoClient

from shared.mongo import connect, database
from tests.bench.measure import Call

TOPICS = ("bench.asked", "bench.answered")


@asynccontextmanager
async def echo(bootstrap: str) -> AsyncIterator[Call]:
    """A call that goes over Kafka to another consumer and back; both ends in this process."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1) for topic in TOPICS])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    waiting: dict[bytes, asyncio.Future[None]] = {}

    async def answer(record: bytes) -> None:
        await producer.send("bench.answered", record)

    async def resolve(record: bytes) -> None:
        waiting.pop(record).set_result(None)

    async def read(topic: str, take: object) -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50)
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.start()
        try:
            async for record in consumer:
                await take(record.value)  # type: ignore[operator]
        finally:
            await consumer.stop()

    readers = [asyncio.create_task(read(*pair)) for pair in zip(TOPICS, (answer, resolve), strict=True)]
    count = 0

    async def call(_number: int) -> None:
        nonlocal count
        count += 1
        key = b"%032d" % count
        done = waiting[key] = asyncio.get_running_loop().create_future()
        await producer.send("bench.asked", key)
        await done

    try:
        yield call
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        await producer.stop()


@asynccontextmanager
async def mongo(url: str) -> AsyncIterator[dict[str, Call]]:
    """A majority insert, a transaction of two inserts, and a read by id."""
    client: AsyncMongoClient[dict[str, object]] = connect(url, application="bench")
    rows = database(client, "bench")["rows"]
    await rows.insert_one({"_id": "known"})

    async def insert(_number: int) -> None:
        await rows.insert_one({"_id": ObjectId(), "text": "x" * 200})

    async def transaction(_number: int) -> None:
        async with client.start_session() as session, await session.start_transaction():
            await rows.insert_one({"_id": ObjectId(), "text": "x" * 200}, session=session)
            await rows.insert_one({"_id": ObjectId(), "text": "x" * 200}, session=session)

    async def read(_number: int) -> None:
        await rows.find_one({"_id": "known"})

    try:
        yield {"insert": insert, "transaction": transaction, "read": read}
    finally:
        await client.close()
