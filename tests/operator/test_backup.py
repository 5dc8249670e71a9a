"""Backups of the databases, and offsets that are saved and rewound, on a real MongoDB and Kafka."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from pymongo import MongoClient

from services.operator import offsets
from services.operator.backup import dump, restore
from services.operator.client import CommandError
from services.operator.offsets import lines_of, read_file, save_offsets
from services.operator.recovered_users import recover_users
from shared.bus import topics
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.bus.topics import SERVICES
from shared.messages.auth.users import IdentifierVerified
from shared.sealing import Sealer

Mongo = MongoClient[dict[str, Any]]
AT = (datetime.now(UTC) - timedelta(hours=3)).replace(microsecond=0)
TABLE = [each for each in topics.TOPICS if each.consumers]


@pytest.fixture
async def prefix(
    monkeypatch: pytest.MonkeyPatch, kafka_bootstrap: str, mongo_url: str, topic_prefix: str, database_prefix: str
) -> str:
    """Prefix of topics with one partition; the environment is that of the services."""
    monkeypatch.setenv("NEST_SEALING_KEYS", f"k1:{base64.b64encode(bytes(32)).decode()}")
    monkeypatch.setenv("NEST_MONGO_URL", mongo_url)
    monkeypatch.setenv("NEST_DATABASE_PREFIX", database_prefix)
    monkeypatch.setenv("NEST_ENVIRONMENT", "test")
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, max_partitions=1, topics=TABLE)
    return topic_prefix


async def handle(bootstrap: str, prefix: str, topic: str, offset: int, *, metadata: str = "1") -> None:
    """Commit an offset, as auth does."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=f"{prefix}auth", enable_auto_commit=False)
    await consumer.start()
    partition = TopicPartition(prefix + topic, 0)
    consumer.assign([partition])
    await consumer.commit({partition: (offset, metadata)})
    await consumer.stop()


async def append(bootstrap: str, prefix: str, topic: str, count: int, *, at: datetime = AT) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        for _ in range(count):
            time = int(at.timestamp() * 1000)
            await producer.send_and_wait(prefix + topic, b"{}", partition=0, timestamp_ms=time)


async def committed(bootstrap: str, prefix: str) -> dict[str, tuple[int, str]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(f"{prefix}auth")
        return {each.topic.removeprefix(prefix): (value.offset, value.metadata) for each, value in found.items()}
    finally:
        await admin.close()


async def test_restored_databases_are_those_of_the_backup(
    prefix: str, kafka_bootstrap: str, mongo_client: Mongo, database_prefix: str, tmp_path: Path
) -> None:
    documents = {
        service: [{"_id": f"{service} {number}", "at": AT, "bytes": b"\x00\xff"} for number in range(1_200)]
        for service in SERVICES
    }
    for service in SERVICES:
        mongo_client[database_prefix + service]["things"].insert_many(documents[service])
        mongo_client[database_prefix + service].create_collection("empty")
    folder, said = tmp_path / "backup", list[str]()
    await dump(folder, kafka_bootstrap, prefix, said.append)
    assert said == [f"{service}: 1200 documents" for service in SERVICES]
    assert {each.stat().st_mode & 0o077 for each in (folder, folder / "auth")} == {0}
    with pytest.raises(CommandError, match="auth is not empty"):
        await restore(folder, said.append)
    for service in SERVICES:
        mongo_client.drop_database(database_prefix + service)
    await restore(folder, said.append)
    for service in SERVICES:
        restored = mongo_client[database_prefix + service]["things"].find().sort("_id")
        assert [each["_id"] for each in restored] == sorted(each["_id"] for each in documents[service])
    with pytest.raises(CommandError, match="can't be created"):
        await dump(folder, kafka_bootstrap, prefix, said.append)


@pytest.mark.usefixtures("prefix")
@pytest.mark.parametrize(
    ("version", "missing", "text"),
    [
        (99, "", "has version 99, and this release knows versions up to"),
        (0, "backup.json", "is no complete backup"),
        (0, "billing/things.bson.gz", "can't be read"),
    ],
)
async def test_incomplete_and_newer_backups_are_refused(
    database_prefix: str, mongo_client: Mongo, tmp_path: Path, *, version: int, missing: str, text: str
) -> None:
    databases = {service: {"version": version, "documents": {}} for service in SERVICES}
    databases["billing"]["documents"] = {"things": 1}
    (tmp_path / "backup.json").write_text(json.dumps({"databases": databases}))
    if missing == "backup.json":
        (tmp_path / missing).unlink()
    with pytest.raises(CommandError, match=text):
        await restore(tmp_path, lambda _: None)
    assert not [each for each in mongo_client.list_database_names() if each.startswith(database_prefix)]


async def test_offsets_are_rewound_to_the_saved_ones(prefix: str, kafka_bootstrap: str, tmp_path: Path) -> None:
    await append(kafka_bootstrap, prefix, "auth.commands", 10)
    await append(kafka_bootstrap, prefix, "billing.events", 4)
    await handle(kafka_bootstrap, prefix, "auth.commands", 3, metadata="1700000000000")
    file = tmp_path / "offsets.json"
    assert await save_offsets(file, kafka_bootstrap, prefix) == 1
    await handle(kafka_bootstrap, prefix, "auth.commands", 10)
    await handle(kafka_bootstrap, prefix, "billing.events", 4)
    plans = await offsets._plans(kafka_bootstrap, prefix, read_file(file), None)
    assert lines_of(plans) == [
        f"auth reads 7 records of {prefix}auth.commands again",
        # Without an offset at the time of the backup nothing of it was handled.
        f"auth reads 4 records of {prefix}billing.events again",
    ]
    await offsets._commit(kafka_bootstrap, plans)
    assert await committed(kafka_bootstrap, prefix) == {
        "auth.commands": (3, "1700000000000"),
        "billing.events": (0, ""),
    }
    assert lines_of(await offsets._plans(kafka_bootstrap, prefix, read_file(file), None)) == []


async def test_expired_records_are_named(prefix: str, kafka_bootstrap: str, tmp_path: Path) -> None:
    await append(kafka_bootstrap, prefix, "auth.commands", 10)
    await handle(kafka_bootstrap, prefix, "auth.commands", 3)
    file = tmp_path / "offsets.json"
    await save_offsets(file, kafka_bootstrap, prefix)
    await handle(kafka_bootstrap, prefix, "auth.commands", 10)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(f"{prefix}auth.commands", 0): RecordsToDelete(8)})
    await admin.close()
    plans = await offsets._plans(kafka_bootstrap, prefix, read_file(file), None)
    assert lines_of(plans) == [f"auth reads 2 records of {prefix}auth.commands again; 5 more have expired and are lost"]


async def test_offsets_are_rewound_to_ten_minutes_before_a_time(prefix: str, kafka_bootstrap: str) -> None:
    for minutes in (0, 45, 55, 60, 75):
        await append(kafka_bootstrap, prefix, "auth.commands", 1, at=AT + timedelta(minutes=minutes))
    await handle(kafka_bootstrap, prefix, "auth.commands", 5)
    to = (AT + timedelta(hours=1)).replace(tzinfo=None)
    plans = await offsets._plans(kafka_bootstrap, prefix, None, to)
    assert lines_of(plans) == [f"auth reads 3 records of {prefix}auth.commands again"]
    await offsets._commit(kafka_bootstrap, plans)
    began = int((AT + timedelta(minutes=50)).timestamp() * 1000)
    assert (await committed(kafka_bootstrap, prefix))["auth.commands"] == (2, str(began))


async def test_offsets_of_a_running_service_are_not_rewound(prefix: str, kafka_bootstrap: str) -> None:
    member = AIOKafkaConsumer(f"{prefix}auth.commands", bootstrap_servers=kafka_bootstrap, group_id=f"{prefix}auth")
    await member.start()
    try:
        with pytest.raises(CommandError, match="1 instances of auth run or have just been killed: stop all services"):
            await offsets._plans(kafka_bootstrap, prefix, None, AT.replace(tzinfo=None))
    finally:
        await member.stop()


async def test_offsets_of_another_kafka_are_refused(prefix: str, kafka_bootstrap: str) -> None:
    saved = {"auth": {"auth.commands/0": (7, "")}}
    with pytest.raises(CommandError, match=r"ends at offset 0, and the backup's is 7: this Kafka is not the one"):
        await offsets._plans(kafka_bootstrap, prefix, saved, None)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"offsets": {"auth": 1}}', '{"offsets": {"auth": {"a/0": "x"}}}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "offsets.json"
    file.write_text(content)
    with pytest.raises(CommandError, match="is no file of nest offsets save"):
        read_file(file)


async def test_users_who_registered_after_the_backup_get_their_ids_back(
    prefix: str, kafka_bootstrap: str, mongo_client: Mongo, database_prefix: str, tmp_path: Path
) -> None:
    sealer = Sealer({"k1": bytes(32)})
    producer = Producer(
        KafkaConnection(kafka_bootstrap), macs=RecordMacs(sealer, prefix=prefix), prefix=prefix, client_id="tests"
    )
    await producer.start()

    async def verified(user: str, identifier: str, value: str) -> None:
        event = IdentifierVerified(
            key=user, user_id=user, identifier_id=identifier, identifier_type="email", identifier_value=value, at=AT
        )
        body, now = encode(event, sealer), unix_milliseconds()
        await producer.send(Envelope(id=identifier, wire=event.wire, topic=event.topic, key=user, body=body, time=now))

    await verified("user_0", "userident_0", "before@example.com")
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, group_id=f"{prefix}billing")
    await consumer.start()
    consumer.assign([TopicPartition(f"{prefix}auth.events", 0)])
    await consumer.commit({TopicPartition(f"{prefix}auth.events", 0): (1, "")})
    await consumer.stop()
    file = tmp_path / "offsets.json"
    await save_offsets(file, kafka_bootstrap, prefix)
    await verified("user_1", "userident_1", "new@example.com")
    await verified("user_1", "userident_1b", "second@example.com")
    await verified("user_2", "userident_2", "known@example.com")
    await verified("user_9", "userident_9", "taken@example.com")
    await producer.stop()
    # A forged event has no valid MAC.
    forged = Producer(
        KafkaConnection(kafka_bootstrap),
        macs=RecordMacs(Sealer({"k1": b"f" * 32}), prefix=prefix),
        prefix=prefix,
        client_id="tests",
    )
    producer = forged
    await producer.start()
    await verified("user_8", "userident_8", "forged@example.com")
    await producer.stop()

    auth = mongo_client[f"{database_prefix}auth"]
    row = {"identifierType": "email", "removedAt": None, "version": 1}
    known = {"_id": "userident_2", "userId": "user_2", "identifierValue": "known@example.com", "verifiedAt": None}
    auth["identifiers"].insert_many(
        [
            {**row, **known},
            {**row, "_id": "userident_3", "userId": "user_3", "identifierValue": "taken@example.com"},
        ]
    )
    auth["users"].insert_many([{"_id": "user_2", "version": 1}, {"_id": "user_3", "version": 1}])
    for _ in range(2):
        done = await recover_users(file, kafka_bootstrap, prefix)
        assert (done.events, done.taken) == (4, 1)
    assert {each["_id"] for each in auth["users"].find()} == {"user_1", "user_2", "user_3"}
    found = {each["identifierValue"]: each["userId"] for each in auth["identifiers"].find()}
    assert found == {
        "new@example.com": "user_1",
        "second@example.com": "user_1",
        "known@example.com": "user_2",
        "taken@example.com": "user_3",
    }
    verified_row = auth["identifiers"].find_one({"_id": "userident_2"})
    assert verified_row is not None
    assert (verified_row["verifiedAt"].timestamp(), verified_row["version"]) == (AT.timestamp(), 2)
