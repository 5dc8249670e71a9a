"""Everything that a Nest keeps or says, and whether somebody can be read in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiokafka import AIOKafkaConsumer, TopicPartition
from pymongo import MongoClient

from shared.bus.topics import FOREVER, Topic, declared
from shared.ids import derived_message_id
from tests.stack import MOST_PARTITIONS, Stack

Client = MongoClient[dict[str, Any]]


def forms(value: str) -> Iterator[bytes]:
    """How a value may be written by whoever knows it alone: plain, encoded, or hashed without a key."""
    raw = value.encode()
    yield raw
    yield raw.hex().encode()
    yield quote(value, safe="").encode()
    yield json.dumps(value)[1:-1].encode()
    yield value.replace("@", "\\u0040").encode()
    yield derived_message_id("address", value).encode()
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(algorithm, raw).digest()
        yield digest.hex().encode()
        yield base64.b64encode(digest).rstrip(b"=")
        yield base64.urlsafe_b64encode(digest).rstrip(b"=")
        yield repr(digest)[2:-1].encode()
    for before in range(3):
        # Of a text in the middle of another, the characters at its edges depend on the neighbours.
        encoded = base64.b64encode(b"\0" * before + raw)
        inner = encoded[4 if before else 0 :].rstrip(b"=")[:-1]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


def found(value: str, where: bytes) -> bool:
    """Whether a value can be read there, in any of its forms, in whatever letters: small, capital, or as it is."""
    lower = where.lower()
    if any(form.lower() in lower for form in forms(value.lower())):
        return True
    return any(form in where for form in forms(value))


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a topic.

    Attributes:
        topic: without the deployment's prefix.
        wire: which message it says it is.
        text: its key, its headers and its value.
    """

    topic: str
    wire: str
    text: bytes


def documents(nest: Stack, mongo_client: Client) -> dict[str, bytes]:
    """Everything in every collection of every database of this deployment, by ``service.collection``."""
    prefix = nest.environment["NEST_DATABASE_PREFIX"]
    return {
        f"{database.removeprefix(prefix)}.{name}": "\n".join(map(repr, mongo_client[database][name].find())).encode()
        for database in mongo_client.list_database_names()
        if database.startswith(prefix)
        for name in mongo_client[database].list_collection_names()
    }


async def records(nest: Stack, topics: Iterable[Topic]) -> list[Record]:
    """Everything on these topics."""
    prefix = nest.environment["NEST_TOPIC_PREFIX"]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    read: list[Record] = []
    await consumer.start()
    try:
        partitions = [TopicPartition(prefix + topic.name, number) for topic in topics for number in _partitions(topic)]
        consumer.assign(partitions)
        # What is not there ends here, instead of being empty.
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for partition, came in (await consumer.getmany(timeout_ms=500)).items():
                read += [_record(partition.topic.removeprefix(prefix), record) for record in came]
    finally:
        await consumer.stop()
    assert read, "nothing at all was read"
    return read


def _partitions(topic: Topic) -> range:
    return range(min(topic.partitions, MOST_PARTITIONS))


def _record(topic: str, record: Any) -> Record:
    headers = b"\n".join(name.encode() + b": " + value for name, value in record.headers)
    wire = next((value.decode() for name, value in record.headers if name == "type"), "")
    return Record(topic, wire, b"\n".join((record.key or b"", headers, record.value or b"")))


def is_kept(topic: Topic) -> bool:
    """Whether records of it may be there long after they were said: compacted, for ever, or dead letters."""
    return topic.compacted or topic.retention == FOREVER or topic.name.endswith(".dead")


async def kept_records(nest: Stack) -> dict[str, bytes]:
    """Everything on topics that are compacted or kept for ever, and among the dead letters."""
    kept = [topic for topic in declared() if is_kept(topic)]
    return {f"{record.topic}/{number}": record.text for number, record in enumerate(await records(nest, kept))}


async def metrics(nest: Stack) -> bytes:
    """What all processes tell of themselves."""
    pages = [(await nest.http.get(f"{url}/metrics")).content for url in nest.health.values()]
    assert all(pages)
    return b"".join(pages)
