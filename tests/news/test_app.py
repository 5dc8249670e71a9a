import asyncio
from collections.abc import Callable
from typing import Any

from pymongo import MongoClient

from services.news.app import create
from services.news.settings import NewsSettings
from shared import topics
from shared.envelope import Envelope, encode, unix_milliseconds
from shared.ids import new_message_id
from shared.messages import Message
from shared.messages.auth import ClientCreated, UserCreated
from shared.messages.news import Banner, Content, CreateNewsItem
from shared.producer import Producer
from shared.sealed import Sealer
from tests.backing import Backing


async def test_news_follows_the_clients_that_auth_announces_and_nothing_else_of_it(
    backing: Backing,
    topic_prefix: str,
    database_prefix: str,
    mongo_client: MongoClient[dict[str, Any]],
    settings: Callable[..., NewsSettings],
) -> None:
    chosen = settings(
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=topic_prefix,
        database_prefix=database_prefix,
        drain_seconds=5,
    )
    await topics.apply(backing.kafka_bootstrap, prefix=topic_prefix, most_partitions=2)
    sealer = Sealer(chosen.master_keys())
    producer = Producer(backing.kafka_bootstrap, prefix=topic_prefix)
    await producer.start()
    banner = Content(payload=Banner(emoji="", title="t", body="b"))
    now = unix_milliseconds()
    said: list[Message] = [
        ClientCreated(key="client_1", client_id="client_1"),
        UserCreated.model_validate({"key": "user_1", "user_id": "user_1", "at": now / 1000}),
        CreateNewsItem(primary=banner, id="newsitem_1"),
    ]
    try:
        async with create(chosen):
            for message in said:
                await producer.send(
                    Envelope(
                        id=new_message_id(),
                        wire=message.wire,
                        topic=message.topic,
                        key=message.key,
                        body=encode(message, sealer),
                        time=now,
                    )
                )
            database = mongo_client[f"{database_prefix}news"]
            async with asyncio.timeout(30):
                while not (database["clients"].find_one() and database["news_items"].find_one()):  # noqa: ASYNC110 -- MongoDB's state
                    await asyncio.sleep(0.05)
    finally:
        await producer.stop()
    assert [client["_id"] for client in database["clients"].find()] == ["client_1"]
    assert [item["_id"] for item in database["news_items"].find()] == ["newsitem_1"]
