import asyncio
from collections.abc import Callable
from typing import Any

from pymongo import MongoClient

from services.news.app import create
from services.news.settings import NewsSettings
from shared.bus import topics
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.outside_work import publish_outside_work
from shared.bus.producer import Producer
from shared.messages import Message
from shared.messages.auth.users import UserCreated
from shared.messages.billing.subscriptions import SubscriptionStarted
from shared.messages.billing.trials import TrialStarted
from shared.messages.news import Banner, BannerContent, CreateNewsItem
from shared.sealing import Sealer
from tests.backing import Backing
from tests.news.conftest import client_event


async def test_service_handles_commands_and_subscription_events_over_kafka(
    backing: Backing,
    topic_prefix: str,
    database_prefix: str,
    mongo_client: MongoClient[dict[str, Any]],
    settings: Callable[..., NewsSettings],
) -> None:
    loaded = settings(
        environment="test",
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=topic_prefix,
        database_prefix=database_prefix,
        drain_seconds=5,
    )
    await topics.apply(KafkaConnection(backing.kafka_bootstrap), prefix=topic_prefix, max_partitions=2)
    sealer = Sealer(loaded.master_keys())
    producer = Producer(KafkaConnection(backing.kafka_bootstrap), macs=loaded.record_macs(sealer), prefix=topic_prefix)
    await producer.start()
    banner = BannerContent(payload=Banner(emoji="", title="t", body="b"))
    at = "2026-11-21T06:05:00Z"
    ids = {"key": "user_1", "user_id": "user_1", "subscription_id": "sub_1"}
    messages: list[Message] = [
        client_event("client_1"),
        TrialStarted.model_validate({**ids, "trial_id": "trial_1", "ends_at": at}),
        UserCreated.model_validate({"key": "user_1", "user_id": "user_1", "at": at}),
        SubscriptionStarted(**ids, status="trialing"),
        CreateNewsItem(primary=banner, id="newsitem_1"),
    ]
    database = mongo_client[f"{database_prefix}news"]
    try:
        async with create(loaded):
            for message in messages:
                await publish_outside_work(producer, sealer, message)
            async with asyncio.timeout(30):
                while not (database["subscriptions"].find_one() and database["news_items"].find_one()):  # noqa: ASYNC110 -- MongoDB's state
                    await asyncio.sleep(0.05)
    finally:
        await producer.stop()
    assert [(row["_id"], row["status"]) for row in database["subscriptions"].find()] == [("sub_1", "trialing")]
    assert [row["_id"] for row in database["news_items"].find()] == ["newsitem_1"]
