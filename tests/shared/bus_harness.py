"""Test harness of the bus: sample services on a real Kafka and MongoDB, a client, and dumps of topics."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from shared.bus import topics
from shared.bus.consumer import Consumer
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.handling import Handlers
from shared.bus.inbox import Inbox
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.dead_letters.records import DeadLetter, is_tombstone
from shared.ids import new_message_id
from shared.messages import Message
from shared.migrations import Migrations
from shared.mongo import Client, Database, connect, database
from shared.sealing import Sealer
from shared.service import Service
from shared.settings import ServiceSettings
from tests.shared.sample_services import (
    CONSUMED,
    HANDLERS,
    INDEXES,
    REPUBLISH_COMMANDS,
    TOPICS,
    Ledger,
    open_context,
)

MASTER_KEY = bytes(range(32))


@dataclass(frozen=True)
class ReceivedReply:
    """A reply from ``gateway.replies``."""

    kind: str
    body: Any
    replayed: bool


@dataclass
class RunningService:
    """A service that runs in this process."""

    service: Service
    ledger: Ledger
    stuck: list[bool] = field(default_factory=list)
    """One entry per call of the watchdog."""

    @property
    def consumer(self) -> Consumer:
        """Consumer of the service."""
        assert self.service._consumer is not None
        return self.service._consumer


class BusHarness:
    """Topics, databases and a client of one test; an async context manager.

    Args:
        bootstrap: Kafka brokers.
        mongo_url: URL of a MongoDB replica set.
        prefix: prefix of this test's topics.
        database_prefix: prefix of this test's databases.
        table: topics to create; those of the sample services by default.

    Attributes:
        replies: all received replies, each with its reply ID.
    """

    def __init__(
        self,
        bootstrap: str,
        mongo_url: str,
        prefix: str,
        database_prefix: str,
        table: Sequence[topics.Topic] = TOPICS,
    ) -> None:
        self.bootstrap = bootstrap
        self.mongo_url = mongo_url
        self.prefix = prefix
        self.sealer = Sealer({"test": MASTER_KEY})
        self.macs = RecordMacs(self.sealer, prefix=prefix)
        self.producer = Producer(KafkaConnection(bootstrap), macs=self.macs, prefix=prefix, client_id="bus", timeout=20)
        self.client: Client = connect(mongo_url, application="bus", timeout=20)
        self._database_prefix = database_prefix
        self._table = table
        self._partition = random.randrange(4)
        self._waiting: dict[str, asyncio.Future[ReceivedReply]] = {}
        self.replies: list[tuple[str, ReceivedReply]] = []

    async def __aenter__(self) -> Self:
        await topics.apply(KafkaConnection(self.bootstrap), prefix=self.prefix, topics=self._table)
        await self.producer.start()
        self._replies = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, auto_offset_reset="latest", fetch_max_wait_ms=50
        )
        partition = TopicPartition(f"{self.prefix}gateway.replies", self._partition)
        self._replies.assign([partition])
        await self._replies.start()
        await self._replies.position(partition)
        self._reading = asyncio.create_task(self._read_replies())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._replies.stop()
        await self.producer.stop()
        await self.client.close()

    def settings(self, **changes: Any) -> ServiceSettings:
        """Return the settings of a service."""
        usual = {
            "kafka_bootstrap": self.bootstrap,
            "mongo_url": self.mongo_url,
            "topic_prefix": self.prefix,
            "database_prefix": self._database_prefix,
            "environment": "test",
            "sealing_keys": f"test:{base64.b64encode(MASTER_KEY).decode()}",
        }
        return ServiceSettings(**{**usual, **changes})

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the same settings as environment variables of a process."""
        settings = self.settings()
        return {
            "NEST_KAFKA_BOOTSTRAP": self.bootstrap,
            "NEST_MONGO_URL": self.mongo_url,
            "NEST_TOPIC_PREFIX": self.prefix,
            "NEST_DATABASE_PREFIX": self._database_prefix,
            "NEST_ENVIRONMENT": "test",
            "NEST_SEALING_KEYS": settings.sealing_keys.get_secret_value(),
            **changes,
        }

    @asynccontextmanager
    async def running(
        self,
        name: str = "ledger",
        *,
        consumers: Mapping[str, Sequence[str]] | None = None,
        migrations: Migrations | None = None,
        handlers: Handlers | None = None,
        **changes: Any,
    ) -> AsyncIterator[RunningService]:
        """Run an instance of ``ledger`` or ``audit`` in this process.

        Args:
            name: the service.
            consumers: the services that consume each topic.
            migrations: those that its release knows.
            handlers: those of its release.
            changes: other settings.
        """
        opened: list[Ledger] = []
        stuck: list[bool] = []
        service = Service(
            self.settings(**changes),
            name=name,
            handlers=HANDLERS[name] if handlers is None else handlers,
            topics=CONSUMED[name],
            indexes=INDEXES,
            open_context=open_context(opened),
            migrations=migrations or Migrations(),
            consumers=consumers or {},
            on_stuck=lambda: stuck.append(True),
            republish_commands=REPUBLISH_COMMANDS,
        )
        async with service:
            yield RunningService(service, opened[0], stuck)

    def database(self, name: str = "ledger") -> Database:
        """Return the database of a service."""
        return database(self.client, self._database_prefix + name)

    async def rows(self, name: str = "ledger") -> list[dict[str, Any]]:
        """Return the inbox rows of a service."""
        return await self.database(name)[Inbox.COLLECTION].find().to_list()

    async def numbers(self, subject: str, name: str = "ledger") -> list[int]:
        """Return the numbers of a subject's entries in the order of insertion; a second effect is a second number."""
        entries = await self.database(name)["entries"].find({"subject": subject}).sort("$natural", 1).to_list()
        return [entry["number"] for entry in entries]

    async def listed(self, subject: str) -> list[int]:
        """Return the list in a subject's document: the numbers in the order of the commits of all instances."""
        document = await self.database()["subjects"].find_one({"_id": subject})
        return document["numbers"] if document else []

    async def send(self, message: Message, **fields: Any) -> Envelope:
        """Send a message to its topic; return when Kafka has acknowledged it."""
        usual = {
            "id": new_message_id(),
            "wire": message.wire,
            "topic": message.topic,
            "key": message.key,
            "body": encode(message, self.sealer),
            "time": unix_milliseconds(),
        }
        envelope = Envelope(**{**usual, **fields})
        await self.producer.send(envelope)
        return envelope

    async def call(self, message: Message, *, seconds: float = 20.0, **fields: Any) -> ReceivedReply:
        """Send a message and wait for the reply until the deadline.

        With an ``id`` it has a fingerprint, as a call with an idempotency key: repeats get the stored reply. The reply
        to any other call is removed from its row after seconds.

        Raises:
            TimeoutError: there was no reply in time.
        """
        if "id" in fields:
            fields.setdefault("fingerprint", sha256(message.model_dump_json().encode()).hexdigest())
        message_id = fields.pop("id", None) or new_message_id()
        future: asyncio.Future[ReceivedReply] = asyncio.get_running_loop().create_future()
        self._waiting[message_id] = future
        fields = {
            "deadline": unix_milliseconds() + int(seconds * 1000),
            "reply_to": self._partition,
            "reply_id": message_id,
            **fields,
        }
        await self.send(message, id=message_id, **fields)
        async with asyncio.timeout(seconds):
            return await future

    async def put_record(
        self,
        topic: str,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        *,
        key: bytes | None = None,
        partition: int | None = None,
    ) -> None:
        """Send a raw record with a valid MAC to a topic."""
        await self.producer.send_record(topic, value, headers, key=key, partition=partition)

    async def put_foreign_record(
        self,
        topic: str,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        *,
        key: bytes | None = None,
        partition: int | None = None,
    ) -> None:
        """Send a raw record to a topic as it is, as a program other than Nest does."""
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap, max_request_size=2 << 20) as producer:
            await producer.send_and_wait(self.prefix + topic, value, key, partition, headers=list(headers))

    async def records(self, topic: str) -> list[Any]:
        """Return all records of a topic, those of a partition in order."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = [
                TopicPartition(self.prefix + topic, number) for number in await self.producer.partitions(topic)
            ]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            records: list[Any] = []
            for partition in partitions:
                await consumer.seek_to_beginning(partition)
            while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
                for found in (await consumer.getmany(timeout_ms=500)).values():
                    records.extend(found)
            return records
        finally:
            await consumer.stop()

    async def dead_letters(self, topic: str = "ledger.commands") -> list[DeadLetter]:
        """Return all dead letters of a topic, unsealed."""
        records = await self.records(topics.dead_letter_topic(topic))
        return [DeadLetter.of(record, topic, self.sealer) for record in records if not is_tombstone(record)]

    async def partition_of(self, key: str) -> int:
        """Return the partition of a key on the ledger's topics."""
        return zlib.crc32(key.encode()) % len(await self.producer.partitions("ledger.commands"))

    async def committed(self, name: str = "ledger") -> dict[TopicPartition, int]:
        """Return the committed offsets of a service's consumer group."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(self.prefix + name)
            return {partition: offset.offset for partition, offset in found.items() if offset.offset >= 0}
        finally:
            await admin.close()

    async def expire_records(self, topic: str, *, keep: int = 0) -> int:
        """Delete the records of a topic as its retention does, except the last ``keep``; return the number deleted."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        await asyncio.gather(admin.start(), consumer.start())
        try:
            numbers = await self.producer.partitions(topic)
            partitions = [TopicPartition(self.prefix + topic, number) for number in numbers]
            beginnings = await consumer.beginning_offsets(partitions)
            ends = await consumer.end_offsets(partitions)
            first = {partition: max(beginnings[partition], ends[partition] - keep) for partition in partitions}
            await admin.delete_records({partition: RecordsToDelete(offset) for partition, offset in first.items()})
            return sum(first[partition] - beginnings[partition] for partition in partitions)
        finally:
            await asyncio.gather(admin.close(), consumer.stop())

    async def timer(self, message: Message) -> Envelope:
        """Insert a due timer of ledger."""
        envelope = Envelope(
            id=new_message_id(),
            wire=message.wire,
            topic=message.topic,
            key=message.key,
            body=encode(message, self.sealer),
            time=unix_milliseconds(),
        )
        await self.database()[Inbox.TIMERS].insert_one({"_id": envelope.id, "at": datetime.now(UTC), **envelope.row()})
        return envelope

    async def lose_topics(self) -> None:
        """Delete all topics with their records and the offsets of their consumer groups, and create them again."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            names = {name for name in await admin.list_topics() if name.startswith(self.prefix)}
            await admin.delete_topics(sorted(names))

            async def gone() -> bool:
                return not names & set(await admin.list_topics())

            await wait_until(gone)
        finally:
            await admin.close()
        await topics.apply(KafkaConnection(self.bootstrap), prefix=self.prefix, topics=self._table)

    async def lag(self, name: str = "ledger") -> int:
        """Return the number of records after the committed offsets of a service's consumer group."""
        committed = await self.committed(name)
        records = [record for topic in CONSUMED[name] for record in await self.records(topic)]
        return sum(
            record.offset >= committed.get(TopicPartition(record.topic, record.partition), 0) for record in records
        )

    async def rewind(self, *names: str) -> None:
        """Set the committed offsets back to the beginning, as an operator might by mistake."""
        for name in names:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self.bootstrap, group_id=self.prefix + name, enable_auto_commit=False
            )
            await consumer.start()
            partitions = list(await self.committed(name))
            consumer.assign(partitions)
            await consumer.commit(dict.fromkeys(partitions, 0))
            await consumer.stop()

    async def drained(self, *names: str, seconds: float = 60.0) -> None:
        """Wait until these services have no lag."""

        async def nothing_left() -> bool:
            return not any([await self.lag(name) for name in names or ("ledger",)])

        await wait_until(nothing_left, seconds, "the services still have lag")

    async def _read_replies(self) -> None:
        async for record in self._replies:
            headers = dict(record.headers)
            reply_id = headers["id"].decode()
            body = json.loads(record.value) if record.value[:1] in (b"{", b"[") else record.value
            answer = ReceivedReply(headers["kind"].decode(), body, "replayed" in headers)
            self.replies.append((reply_id, answer))
            future = self._waiting.pop(reply_id, None)
            if future is not None and not future.done():
                future.set_result(answer)


async def wait_until(
    condition: Callable[[], Awaitable[bool]], seconds: float = 60.0, failure: str = "the condition never became true"
) -> None:
    """Wait until a condition is true.

    Raises:
        AssertionError: the condition is still false after the timeout.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, failure
        await asyncio.sleep(0.05)
