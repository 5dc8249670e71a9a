"""Floors: the best that the machine allows without Nest, for Kafka and MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from bson import ObjectId
from pymongo import AsyncMongoClient

from shared.mongo import connect, database
from tests.bench.measure import Call

REQUESTS = "bench.requests"
REPLIES = "bench.replies"
EVENTS = "bench.events"
EVENT = b"x" * 1_800
"""As large as a usual event of Stripe."""


@asynccontextmanager
async def kafka(bootstrap: str) -> AsyncIterator[dict[str, Call]]:
    """An echo over two topics, with both ends in this process, and one produced record.

    All records are acknowledged by all in-sync replicas.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(REQUESTS, 1, 1), NewTopic(REPLIES, 1, 1), NewTopic(EVENTS, 4, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    waiting: dict[bytes, asyncio.Future[None]] = {}
    count = 0

    async def reply(record: bytes) -> None:
        await producer.send(REPLIES, record)

    async def resolve(record: bytes) -> None:
        waiting.pop(record).set_result(None)

    async def consume(topic: str, handle: Callable[[bytes], Awaitable[None]]) -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", fetch_max_wait_ms=50)
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.start()
        try:
            async for record in consumer:
                await handle(record.value)
        finally:
            await consumer.stop()

    async def echo(_number: int) -> None:
        nonlocal count
        count += 1
        key = b"%032d" % count
        done = waiting[key] = asyncio.get_running_loop().create_future()
        await producer.send(REQUESTS, key)
        await done

    async def produce(_number: int) -> None:
        await producer.send_and_wait(EVENTS, EVENT)

    consumers = [asyncio.create_task(consume(REQUESTS, reply)), asyncio.create_task(consume(REPLIES, resolve))]
    try:
        yield {"echo over Kafka": echo, "record onto Kafka": produce}
    finally:
        for consumer in consumers:
            consumer.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        await producer.stop()


@asynccontextmanager
async def mongo(url: str) -> AsyncIterator[dict[str, Call]]:
    """A majority insert, a transaction of two inserts, and a read by ``_id``."""
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
        yield {"MongoDB insert": insert, "MongoDB transaction": transaction, "MongoDB read": read}
    finally:
        await client.close()
