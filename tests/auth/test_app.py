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
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.topic_reader import TopicReader
from shared.ids import new_message_id
from shared.messages.auth.signing_keys import SigningKeyPublished
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.sealing import Sealer
from tests.backing import Backing
from tests.stack import Process

ADDRESS = "ana@example.com"
COMMANDS = 10


class RecordCollector:
    """Collects records, and reports when enough of one type have arrived."""

    def __init__(self, wire: str, enough: int) -> None:
        self._records: list[ConsumerRecord] = []
        self._wire = wire
        self._enough = enough
        self.complete = asyncio.Event()

    def add(self, record: ConsumerRecord) -> None:
        self._records.append(record)
        if len(self.of_type(self._wire)) >= self._enough:
            self.complete.set()

    def of_type(self, wire: str) -> list[ConsumerRecord]:
        return [record for record in self._records if dict(record.headers)["type"] == wire.encode()]


async def test_two_instances_share_the_signing_key_and_the_commands(
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
    await topics.apply(KafkaConnection(backing.kafka_bootstrap), prefix=topic_prefix, max_partitions=2)
    collector = RecordCollector(UserEnsured.wire, COMMANDS)
    sealer = Sealer(chosen.master_keys())
    macs = chosen.record_macs(sealer)
    reader = TopicReader(KafkaConnection(backing.kafka_bootstrap), macs=macs)
    producer = Producer(KafkaConnection(backing.kafka_bootstrap), macs=macs, prefix=topic_prefix)
    await producer.start()
    await reader.follow({topic_prefix + topic: collector.add for topic in ("auth.keys", "auth.events")})
    try:
        async with create(chosen), create(chosen):
            for number in range(COMMANDS):
                command = EnsureUser(key=f"cus_{number}", reference=f"cus_{number}", email=ADDRESS)
                await producer.send(
                    Envelope(
                        id=new_message_id(),
                        wire=command.wire,
                        topic=command.topic,
                        key=command.key,
                        body=encode(command, sealer),
                        time=unix_milliseconds(),
                    )
                )
            async with asyncio.timeout(30):
                await collector.complete.wait()
    finally:
        await reader.stop()
        await producer.stop()

    keys = [
        SigningKeyPublished.model_validate_json(record.value) for record in collector.of_type(SigningKeyPublished.wire)
    ]
    database = mongo_client[f"{database_prefix}auth"]
    assert {key.kid for key in keys} == {key["kid"] for key in database["signing_keys"].find_one()["keys"]}  # type: ignore[index]
    assert {record.key for record in collector.of_type(SigningKeyPublished.wire)} == {keys[0].kid.encode()}
    ensured = [UserEnsured.model_validate_json(record.value) for record in collector.of_type(UserEnsured.wire)]
    assert len({event.user_id for event in ensured}) == 1
    assert database["users"].count_documents({}) == 1


async def test_wrong_sealing_key_stops_the_start_with_one_line(
    backing: Backing, topic_prefix: str, database_prefix: str, settings: Callable[..., AuthSettings], tmp_path: Path
) -> None:
    variables = {
        "kafka_bootstrap": backing.kafka_bootstrap,
        "mongo_url": backing.mongo_url,
        "topic_prefix": topic_prefix,
        "database_prefix": database_prefix,
        "environment": "test",
    }
    await topics.apply(KafkaConnection(backing.kafka_bootstrap), prefix=topic_prefix, max_partitions=2)
    async with create(settings(**variables)):
        pass
    environment = {f"NEST_{name.upper()}": value for name, value in variables.items()}
    other = base64.b64encode(bytes(32)).decode()
    process = Process("auth", {**environment, "NEST_SEALING_KEYS": f"other:{other}"}, tmp_path / "log")
    await process.start()
    assert await process.ended(60) == 78
    assert "nest auth can't start:\nNEST_SEALING_KEYS: does not unseal the signing keys in the database" in process.log
    assert "Traceback" not in process.log
