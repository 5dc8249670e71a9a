"""Search for a value, in any encoding, in everything that a Nest stores, publishes and exports."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.bus.topics import FOREVER, Topic, declared
from shared.ids import derived_message_id
from tests.end_to_end.flows import Mongo
from tests.stack import MAX_PARTITIONS, Stack


@cache
def forms(value: str) -> tuple[bytes, ...]:
    """Return the forms of a value that anybody who knows it can compute: plain, encoded, hashed without a key."""
    return tuple(_forms(value))


def _forms(value: str) -> Iterator[bytes]:
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
        # Inside a longer text, the first and last characters of the encoding depend on the neighbours.
        encoded = base64.b64encode(b"\0" * before + raw)
        inner = encoded[4 if before else 0 :].rstrip(b"=")[:-1]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


def found(value: str, where: bytes) -> bool:
    """Whether any form of a value is there, as written or in other letter case."""
    lower = where.lower()
    return any(form in lower for form in _lower_forms(value)) or any(form in where for form in forms(value))


@cache
def _lower_forms(value: str) -> tuple[bytes, ...]:
    return tuple(form.lower() for form in _forms(value.lower()))


@dataclass(frozen=True, slots=True)
class Record:
    """A record of a topic.

    Attributes:
        topic: name without the prefix.
        wire: the wire name in its header ``type``.
        text: key, headers and value.
    """

    topic: str
    wire: str
    text: bytes


def documents(nest: Stack, mongo_client: Mongo) -> dict[str, bytes]:
    """Return the documents of every collection of this Nest, by ``service.collection``."""
    prefix = nest.environment["NEST_DATABASE_PREFIX"]
    return {
        f"{database.removeprefix(prefix)}.{name}": "\n".join(map(repr, mongo_client[database][name].find())).encode()
        for database in mongo_client.list_database_names()
        if database.startswith(prefix)
        for name in mongo_client[database].list_collection_names()
    }


async def records(nest: Stack, topics: Iterable[Topic]) -> list[Record]:
    """Return the records of these topics."""
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
        # A topic that does not exist fails here; it would otherwise pass as empty.
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for partition, batch in (await consumer.getmany(timeout_ms=500)).items():
                read += [_record(partition.topic.removeprefix(prefix), record) for record in batch]
    finally:
        await consumer.stop()
    assert read
    return read


def _partitions(topic: Topic) -> range:
    return range(min(topic.partitions, MAX_PARTITIONS))


def _record(topic: str, record: Any) -> Record:
    headers = b"\n".join(name.encode() + b": " + value for name, value in record.headers)
    wire = next((value.decode() for name, value in record.headers if name == "type"), "")
    return Record(topic, wire, b"\n".join((record.key or b"", headers, record.value or b"")))


def is_permanent(topic: Topic) -> bool:
    """Whether records of a topic stay for long: compacted, never deleted, or dead letters."""
    return topic.compacted or topic.retention == FOREVER or topic.name.endswith(".dead")


async def permanent_records(nest: Stack) -> dict[str, bytes]:
    """Return the records of the permanent topics, by topic and number."""
    permanent = [topic for topic in declared() if is_permanent(topic)]
    return {f"{record.topic}/{number}": record.text for number, record in enumerate(await records(nest, permanent))}


async def metrics(nest: Stack) -> bytes:
    """Return the metrics of all processes."""
    pages = [(await nest.http.get(f"{url}/metrics")).content for url in nest.health.values()]
    assert all(pages)
    return b"".join(pages)
