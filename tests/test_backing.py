"""The Kafka and MongoDB of the tests."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pymongo import AsyncMongoClient, MongoClient

from services.embedded.kafka import EmbeddedKafka
from services.embedded.mongo import EmbeddedMongo


async def test_kafka_accepts_records(kafka_bootstrap: str, topic_prefix: str, kafka_admin: AIOKafkaAdminClient) -> None:
    await kafka_admin.create_topics([NewTopic(f"{topic_prefix}x", 3, 1)])
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap) as producer:
        assert (await producer.send_and_wait(f"{topic_prefix}x", b"1", partition=0)).offset == 0


async def test_mongo_has_transactions(mongo_url: str, database_prefix: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](mongo_url) as client:
        async with client.start_session() as session, await session.start_transaction():
            await client[f"{database_prefix}x"].rows.insert_one({"_id": 1}, session=session)
        assert await client[f"{database_prefix}x"].rows.count_documents({}) == 1


def test_synchronous_tests_can_read_mongo(mongo_client: MongoClient[dict[str, Any]], topic_prefix: str) -> None:
    assert mongo_client.admin.command("hello")["isWritablePrimary"]


async def test_own_services_keep_acknowledged_writes_after_a_kill(
    own_kafka: Callable[[], Awaitable[EmbeddedKafka]], own_mongo: Callable[[], Awaitable[EmbeddedMongo]]
) -> None:
    kafka, mongo = await own_kafka(), await own_mongo()
    bootstrap, url = kafka.bootstrap, mongo.url
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("x", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait("x", b"1")
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        await client.x.rows.insert_one({"_id": 1})

    await kafka.kill()
    await mongo.kill()
    await kafka.start()
    await mongo.start()

    assert (kafka.bootstrap, mongo.url) == (bootstrap, url)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        assert (await producer.send_and_wait("x", b"2")).offset == 1
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        assert await client.x.rows.find_one() == {"_id": 1}
