"""Dead-letter queue: lists, finds, replays and removes dead letters for operators.

Dead letters are read from Kafka on every call. Kafka deletes them after 30 days; those about an erased user are removed
before. The caller remembers which were replayed or removed: Kafka compacts a removed one only some time later.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from shared.bus.aiokafka_patch import patch_aiokafka
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import BusDown, Producer
from shared.bus.record_macs import RecordMacs
from shared.bus.topics import TOPICS, Topic, dead_letter_topic
from shared.dead_letters.reader import CHUNK, KAFKA_SECONDS, DeadLetterReader, LetterFilter, NewestFirstScan, newest_of
from shared.dead_letters.records import DeadLetter
from shared.sealing import Sealer

SCAN_RECORDS: Final = 20_000
MAX_READERS: Final = 4
"""Concurrent calls that read; others wait. A chunk of the largest dead letters takes 64 MiB of memory."""
PAGE_BYTES: Final = 256 * 1024
"""Maximum size of a page's dead letters as stored on Kafka; a larger one gets a page of its own."""
_MAX_DIGITS: Final = 18
_CURSOR_OFFSETS: Final = (1, 2)
"""Offsets per topic in a cursor: the end of what is left, or its start and end."""


class InvalidQueueCursor(Exception):
    """The cursor was not returned by this queue."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of dead letters with the cursor of the next page; None on the last page."""

    letters: list[DeadLetter]
    next_cursor: str | None


class DeadLetterQueue:
    """The dead letters of all services.

    Args:
        kafka: the connection to Kafka.
        prefix: prefix of every topic name.
        topics: source topics; Nest's own by default.
        sealer: unseals dead letters; without one only their reason headers are available.
        macs: checks the MACs of dead letters, and computes those of replays; needed by ``sender``.
        scan_records: approximate number of records that one call reads.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        prefix: str,
        topics: Iterable[Topic] = TOPICS,
        sealer: Sealer | None = None,
        macs: RecordMacs | None = None,
        scan_records: int = SCAN_RECORDS,
    ) -> None:
        patch_aiokafka()
        self._kafka = kafka
        self._prefix = prefix
        self._topics = sorted(topic.name for topic in topics if topic.consumed)
        self._sealer = sealer
        self._macs = macs
        self._scan_records = scan_records
        self._readers = asyncio.Semaphore(MAX_READERS)

    def service(self, letter: DeadLetter) -> str:
        """Return the service that wrote a dead letter: its consumer group without the prefix."""
        return letter.group.removeprefix(self._prefix)

    async def newest(self, matches: LetterFilter, *, topic: str | None, limit: int, cursor: str | None) -> Page:
        """Return the matching dead letters, newest first.

        A page may have fewer than ``limit`` and still a next cursor, if the call had to read too many records.

        Args:
            matches: selects the dead letters.
            topic: restricts the page to one source topic.
            limit: maximum number of dead letters.
            cursor: ``next_cursor`` of the previous page.

        Raises:
            InvalidQueueCursor: the cursor is invalid.
            BusDown: Kafka can't be read.
        """
        async with self._reader(topic) as reader:
            ends = reader.ends
            if cursor is not None:
                previous = _decoded_cursor(cursor)
                ends = {name: min(end, previous.get(name, [0])[0]) for name, end in ends.items()}
            scans = [NewestFirstScan(reader, name, end, matches) for name, end in ends.items()]
            letters: list[DeadLetter] = []
            size = 0
            while len(letters) < limit and (newest := await newest_of(scans)) is not None:
                size += _size(newest.head)
                if letters and size > PAGE_BYTES:
                    break
                letters.append(newest.take())
            position = {scan.topic: [scan.next] for scan in scans}
            done = all(scan.exhausted for scan in scans)
            return Page(letters, None if done else _encoded_cursor(position))

    async def oldest(self, matches: LetterFilter, *, topic: str | None, limit: int, cursor: str | None) -> Page:
        """Return the matching dead letters topic by topic, oldest first, up to the end as of the first page.

        Args, Raises: as ``newest``.
        """
        async with self._reader(topic) as reader:
            spans: dict[str, list[int]] = {name: [start, reader.ends[name]] for name, start in reader.starts.items()}
            if cursor is not None:
                previous = _decoded_cursor(cursor)
                # Dead letters written since the first page are left out, because a replay may fail again. A forged
                # cursor may name an end beyond the topic's; reading up to it would never end.
                spans = {
                    name: [max(start, previous.get(name, [end])[0]), min(end, previous.get(name, [end])[-1])]
                    for name, (start, end) in spans.items()
                }
            letters: list[DeadLetter] = []
            size = 0
            for name, span in spans.items():
                while span[0] < span[1]:
                    if len(letters) >= limit or size > PAGE_BYTES or reader.budget_used:
                        return Page(letters, _encoded_cursor(spans))
                    for letter in await reader.read(name, span[0], min(span[0] + CHUNK, span[1])):
                        if len(letters) >= limit or size > PAGE_BYTES:
                            break
                        span[0] = letter.offset + 1
                        if matches(letter):
                            letters.append(letter)
                            size += _size(letter)
                    else:
                        span[0] = reader.position
            return Page(letters, None)

    async def find(self, ids: Iterable[str]) -> dict[str, DeadLetter]:
        """Return the dead letters that still exist, by ID; those of one topic in the order of their offsets.

        Raises:
            BusDown: Kafka can't be read.
        """
        offsets: dict[str, set[int]] = {}
        for each in ids:
            topic, _, number = each.rpartition(".")
            if topic in self._topics and number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS:
                offsets.setdefault(topic, set()).add(int(number))
        found: dict[str, DeadLetter] = {}
        async with self._reader(None) as reader:
            for topic in sorted(offsets.keys() & reader.ends.keys()):
                left = [each for each in sorted(offsets[topic]) if reader.starts[topic] <= each < reader.ends[topic]]
                while left:
                    # One read returns all that are close to the first one.
                    close = [offset for offset in left if offset < left[0] + CHUNK]
                    letters = await reader.read(topic, close[0], close[-1] + 1)
                    found.update({letter.id: letter for letter in letters if letter.offset in offsets[topic]})
                    left = left[len(close) :]
        return found

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[Sender]:
        """Open a sender that replays and removes dead letters.

        Raises:
            BusDown: Kafka can't be reached.
        """
        if self._macs is None:
            raise ValueError("a sender needs the keys of the MACs")
        producer = Producer(self._kafka, macs=self._macs, prefix=self._prefix, client_id="nest-dead-letters")
        try:
            await producer.start()
        except KafkaError as failure:
            raise BusDown(f"{type(failure).__name__}: {failure}") from failure
        try:
            yield Sender(producer)
        finally:
            await producer.stop()

    @asynccontextmanager
    async def _reader(self, topic: str | None) -> AsyncIterator[DeadLetterReader]:
        async with self._readers:
            consumer = AIOKafkaConsumer(
                **self._kafka.options,
                client_id="nest-dead-letters",
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=100,
                request_timeout_ms=int(KAFKA_SECONDS * 1000),
            )
            try:
                async with asyncio.timeout(KAFKA_SECONDS):
                    await consumer.start()
                    existing = await consumer.topics()
                    names = {
                        name: full_name
                        for name in self._topics
                        if topic in (None, name) and (full_name := self._prefix + dead_letter_topic(name)) in existing
                    }
                    reader = DeadLetterReader(consumer, names, self._sealer, self._scan_records, macs=self._macs)
                    await reader.open()
                yield reader
            except (KafkaError, TimeoutError) as failure:
                raise BusDown(f"dead letters can't be read: {type(failure).__name__}") from failure
            finally:
                with suppress(KafkaError, TimeoutError):
                    await asyncio.wait_for(consumer.stop(), KAFKA_SECONDS)


class Sender:
    """Replays and removes dead letters."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._partitions: dict[str, list[int]] = {}

    async def replay(self, letter: DeadLetter, *, forced_at: int | None = None) -> None:
        """Put the original record back on its topic, with the headers of ``DeadLetter.replay``; wait for Kafka.

        Raises:
            BusDown: not acknowledged in time.
        """
        topic = letter.topic
        if topic not in self._partitions:
            self._partitions[topic] = await self._producer.partitions(topic)
        # The original partition, whatever partitioner chose it: there the key stays in order with later records, unless
        # the topic has more partitions since then.
        source = letter.source[0] if letter.source else None
        partition = source if source in self._partitions[topic] else None
        headers = letter.replay(forced_at=forced_at)
        await self._producer.send_record(topic, letter.value, headers, key=letter.key, partition=partition)

    async def remove(self, letter: DeadLetter) -> None:
        """Write a tombstone for a ``removable`` dead letter; return when Kafka has acknowledged it.

        Kafka deletes the dead letter at its next compaction.

        Raises:
            BusDown: not acknowledged in time.
        """
        await self._producer.send_record(dead_letter_topic(letter.topic), None, [], key=letter.dedup_key.encode())


def _size(letter: DeadLetter) -> int:
    """Return the maximum size of a dead letter in a listing, which shows the beginning of bodies and headers."""
    headers = sum(len(name) + len(value or b"") for name, value in letter.headers)
    return min(len(letter.value or b"") + headers, 16 * 1024) + len(letter.trace) + 512


def _encoded_cursor(offsets: Mapping[str, list[int]]) -> str:
    return base64.urlsafe_b64encode(json.dumps(offsets, separators=(",", ":")).encode()).decode().rstrip("=")


def _decoded_cursor(cursor: str) -> dict[str, list[int]]:
    try:
        offsets = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        raise InvalidQueueCursor from None
    if not isinstance(offsets, dict):
        raise InvalidQueueCursor
    for each in offsets.values():
        if not (isinstance(each, list) and len(each) in _CURSOR_OFFSETS):
            raise InvalidQueueCursor
        if not all(type(offset) is int and 0 <= offset < 2**63 for offset in each):
            raise InvalidQueueCursor
    return offsets
