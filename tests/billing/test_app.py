import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pymongo import MongoClient

from services.billing.app import create
from services.billing.settings import BillingSettings
from services.stripe_double import StripeDouble
from shared.bus import topics
from shared.bus.envelope import Envelope, unix_milliseconds
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.ids import derived_message_id
from shared.messages.billing.stripe_events import StripeEvent
from shared.sealing import Sealer
from tests.backing import Backing


@pytest.fixture
async def deployed(
    backing: Backing, topic_prefix: str, database_prefix: str, settings: Callable[..., BillingSettings]
) -> Callable[..., BillingSettings]:
    """A factory of settings for a deployment with topics."""
    await topics.apply(KafkaConnection(backing.kafka_bootstrap), prefix=topic_prefix, max_partitions=2)
    return partial(
        settings,
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=topic_prefix,
        database_prefix=database_prefix,
        drain_seconds=5,
    )


async def test_two_instances_record_each_subscription_once(
    deployed: Callable[..., BillingSettings],
    mongo_client: MongoClient[dict[str, Any]],
    double: StripeDouble,
    price: str,
) -> None:
    settings = deployed(stripe_api_base=double.url, stripe_trial_price=price)
    database = mongo_client[f"{settings.database_prefix}billing"]
    created = [
        double.simulate.checkout(price, email=f"{number}@example.com", metadata={"user_id": f"user_{number}"})
        for number in range(10)
    ]
    macs = settings.record_macs(Sealer(settings.master_keys()))
    producer = Producer(KafkaConnection(settings.kafka_bootstrap), macs=macs, prefix=settings.topic_prefix)
    await producer.start()
    try:
        async with create(settings), create(settings):
            for event in [*double.objects("event"), *double.objects("event")]:
                await producer.send(
                    Envelope(
                        id=derived_message_id("stripe", event["id"]),
                        wire=StripeEvent.wire,
                        topic=StripeEvent.topic,
                        key=event["data"]["object"].get("customer") or event["id"],
                        body=json.dumps(event).encode(),
                        time=unix_milliseconds(),
                    )
                )
            subscriptions = database["subscriptions"]
            async with asyncio.timeout(30):
                while subscriptions.count_documents({"status": "active"}) < len(created):  # noqa: ASYNC110 -- MongoDB's state
                    await asyncio.sleep(0.05)
    finally:
        await producer.stop()
    found = {record["stpSubscriptionId"]: record["userId"] for record in subscriptions.find()}
    assert found == {each["id"]: each["metadata"]["user_id"] for each in created}
    assert database["inbox"].count_documents({"kind": {"$ne": "done"}}) == 0
