"""The ledger's services on a real bus, somebody who orders from them, and an onlooker who reads the topics."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from shared.bus import topics
from shared.bus.consumer import Consumer
from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.inbox import Inbox
from shared.bus.producer import Producer
from shared.dead_letters.records import DeadLetter, is_tombstone
from shared.ids import new_message_id
from shared.messages import Message
from shared.mongo import Client, Database, connect, database
from shared.sealing import Sealer
from shared.service import Service
from shared.settings import ServiceSettings
from tests.shared.sample_services import AUDIT, HEARS, INDEXES, LEDGER, TOPICS, Ledger, opening

MASTER_KEY = bytes(range(32))
HANDLERS = {"ledger": LEDGER, "audit": AUDIT}


@dataclass(frozen=True)
class Answer:
    """A reply as it came."""

    kind: str
    body: Any
    replayed: bool


@dataclass
class RunningService:
    """A service in this process, with what its handlers saw."""

    service: Service
    ledger: Ledger
    stuck: list[bool] = field(default_factory=list)
    """An entry for each time the watchdog called."""

    @property
    def consumer(self) -> Consumer:
        """Its consumer."""
        assert self.service._consumer is not None
        return self.service._consumer


class BusHarness:
    """Everything of one test; enter it with ``async with``.

    Args:
        bootstrap: of Kafka.
        mongo_url: of MongoDB.
        prefix: leads the names of this test's topics.
        database_prefix: leads the names of its databases.
        table: the topics; the ledger's by default.
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
        self.producer = Producer(bootstrap, prefix=prefix, client_id="bus", timeout=20)
        self.client: Client = connect(mongo_url, application="bus", timeout=20)
        self._database_prefix = database_prefix
        self._table = table
        self._partition = random.randrange(4)
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self.replies: list[tuple[str, Answer]] = []
        """Every reply that came, with its id."""

    async def __aenter__(self) -> Self:
        await topics.apply(self.bootstrap, prefix=self.prefix, topics=self._table)
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
        """A service's settings."""
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
        """The same for a process of its own."""
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
    async def running(self, name: str = "ledger", **changes: Any) -> AsyncIterator[RunningService]:
        """An instance of ``ledger`` or ``audit``."""
        kept: list[Ledger] = []
        stuck: list[bool] = []
        service = Service(
            self.settings(**changes),
            name=name,
            handlers=HANDLERS[name],
            topics=HEARS[name],
            indexes=INDEXES,
            open_context=opening(kept),
            on_stuck=lambda: stuck.append(True),
        )
        async with service:
            yield RunningService(service, kept[0], stuck)

    def database(self, name: str = "ledger") -> Database:
        """A service's database."""
        return database(self.client, self._database_prefix + name)

    async def rows(self, name: str = "ledger") -> list[dict[str, Any]]:
        """A service's inbox."""
        return await self.database(name)[Inbox.COLLECTION].find().to_list()

    async def numbers(self, subject: str, name: str = "ledger") -> list[int]:
        """The numbers of a subject, in the order they were written, a second effect as a second number."""
        entries = await self.database(name)["entries"].find({"subject": subject}).sort("_id").to_list()
        return [entry["number"] for entry in entries]

    async def listed(self, subject: str) -> list[int]:
        """The list of a subject's own document: the order in which commits happened, whoever made them."""
        document = await self.database()["subjects"].find_one({"_id": subject})
        return document["numbers"] if document else []

    async def send(self, message: Message, **fields: Any) -> Envelope:
        """Put a message on its topic; returns when Kafka has it."""
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

    async def call(self, message: Message, *, seconds: float = 20.0, **fields: Any) -> Answer:
        """Order something and wait for the answer until its deadline is over.

        Raises:
            TimeoutError: there was none in time.
        """
        one_id = fields.pop("id", None) or new_message_id()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[one_id] = future
        fields = {
            "deadline": unix_milliseconds() + int(seconds * 1000),
            "reply_to": self._partition,
            "reply_id": one_id,
            **fields,
        }
        await self.send(message, id=one_id, **fields)
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
        """Put any record on a topic."""
        await self.producer.send_record(topic, value, headers, key=key, partition=partition)

    async def records(self, topic: str) -> list[Any]:
        """Every record that is on a topic now, each partition's in order."""
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
        """Every dead letter of a topic now, opened."""
        records = await self.records(topics.dead_letter_topic(topic))
        return [DeadLetter.of(record, topic, self.sealer) for record in records if not is_tombstone(record)]

    async def partition_of(self, key: str) -> int:
        """Where the records of a key are on the ledger's topics."""
        return zlib.crc32(key.encode()) % len(await self.producer.partitions("ledger.commands"))

    async def committed(self, name: str = "ledger") -> dict[TopicPartition, int]:
        """The offsets that a service's group has committed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(self.prefix + name)
            return {partition: offset.offset for partition, offset in found.items() if offset.offset >= 0}
        finally:
            await admin.close()

    async def lag(self, name: str = "ledger") -> int:
        """How many records a service's group has not passed yet."""
        committed = await self.committed(name)
        records = [record for topic in HEARS[name] for record in await self.records(topic)]
        return sum(
            record.offset >= committed.get(TopicPartition(record.topic, record.partition), 0) for record in records
        )

    async def drained(self, *names: str, seconds: float = 60.0) -> None:
        """Wait until these services have passed every record."""

        async def nothing_left() -> bool:
            return not any([await self.lag(name) for name in names or ("ledger",)])

        await wait_until(nothing_left, seconds, "the services did not get through their topics")

    async def _read_replies(self) -> None:
        async for record in self._replies:
            headers = dict(record.headers)
            reply_id = headers["id"].decode()
            body = json.loads(record.value) if record.value[:1] in (b"{", b"[") else record.value
            answer = Answer(headers["kind"].decode(), body, "replayed" in headers)
            self.replies.append((reply_id, answer))
            future = self._waiting.pop(reply_id, None)
            if future is not None and not future.done():
                future.set_result(answer)


async def wait_until(
    holds: Callable[[], Awaitable[bool]], seconds: float = 60.0, otherwise: str = "it never held"
) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: it does not within so many seconds.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, otherwise
        await asyncio.sleep(0.05)
