import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord
from pymongo import MongoClient

from services.auth.app import create
from services.auth.settings import AuthSettings
from shared.bus import topics
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.producer import Producer
from shared.bus.topic_reader import TopicReader
from shared.ids import new_message_id
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.sealing import Sealer
from tests.backing import Backing
from tests.stack import Process

ADDRESS = "ana@example.com"
ORDERS = 10


class Ears:
    """Hears records, and knows when enough of one sort have come."""

    def __init__(self, wire: str, enough: int) -> None:
        self._records: list[ConsumerRecord] = []
        self._wire = wire
        self._enough = enough
        self.heard_enough = asyncio.Event()

    def take(self, record: ConsumerRecord) -> None:
        self._records.append(record)
        if len(self.said(self._wire)) >= self._enough:
            self.heard_enough.set()

    def said(self, wire: str) -> list[ConsumerRecord]:
        return [record for record in self._records if dict(record.headers)["type"] == wire.encode()]


async def test_two_instances_share_one_key_and_the_work(
    backing: Backing,
    topic_prefix: str,
    database_prefix: str,
    mongo_client: MongoClient[dict[str, Any]],
    settings: Callable[..., AuthSettings],
) -> None:
    chosen = settings(
        kafka_bootstrap=backing.kafka_bootstrap,
        mongo_url=backing.mongo_url,
        topic_prefix=topic_prefix,
        database_prefix=database_prefix,
        drain_seconds=5,
    )
    await topics.apply(backing.kafka_bootstrap, prefix=topic_prefix, max_partitions=2)
    ears = Ears(UserEnsured.wire, ORDERS)
    tails = [
        TopicReader(backing.kafka_bootstrap, topic_prefix + topic, ears.take) for topic in ("auth.keys", "auth.events")
    ]
    sealer = Sealer(chosen.master_keys())
    producer = Producer(backing.kafka_bootstrap, prefix=topic_prefix)
    await producer.start()
    for tail in tails:
        await tail.start()
    try:
        async with create(chosen), create(chosen):
            for number in range(ORDERS):
                order = EnsureUser(key=f"cus_{number}", reference=f"cus_{number}", email=ADDRESS)
                await producer.send(
                    Envelope(
                        id=new_message_id(),
                        wire=order.wire,
                        topic=order.topic,
                        key=order.key,
                        body=encode(order, sealer),
                        time=unix_milliseconds(),
                    )
                )
            async with asyncio.timeout(30):
                await ears.heard_enough.wait()
    finally:
        for tail in tails:
            await tail.stop()
        await producer.stop()

    keys = [SigningKeyPublished.model_validate_json(record.value) for record in ears.said(SigningKeyPublished.wire)]
    database = mongo_client[f"{database_prefix}auth"]
    assert {key.kid for key in keys} == {key["kid"] for key in database["signing_keys"].find_one()["keys"]}  # type: ignore[index]
    assert {record.key for record in ears.said(SigningKeyPublished.wire)} == {keys[0].kid.encode()}
    answers = [UserEnsured.model_validate_json(record.value) for record in ears.said(UserEnsured.wire)]
    assert len({answer.user_id for answer in answers}) == 1
    assert database["users"].count_documents({}) == 1


async def test_a_wrong_sealing_key_at_the_start_is_a_line_that_names_it(
    backing: Backing, topic_prefix: str, database_prefix: str, settings: Callable[..., AuthSettings], tmp_path: Path
) -> None:
    told = {
        "kafka_bootstrap": backing.kafka_bootstrap,
        "mongo_url": backing.mongo_url,
        "topic_prefix": topic_prefix,
        "database_prefix": database_prefix,
        "environment": "test",
    }
    await topics.apply(backing.kafka_bootstrap, prefix=topic_prefix, max_partitions=2)
    async with create(settings(**told)):
        pass
    environment = {f"NEST_{name.upper()}": value for name, value in told.items()}
    other = base64.b64encode(bytes(32)).decode()
    process = Process("auth", {**environment, "NEST_SEALING_KEYS": f"other:{other}"}, tmp_path / "log")
    await process.start()
    assert await process.ended(60) == 78
    assert "nest auth can't start:\nNEST_SEALING_KEYS: does not open the signing keys in the database" in process.log
    assert "Traceback" not in process.log
