"""How does an operator look at dead letters, and put them back? Straight from Kafka, in bounded reads.

Kafka forgets letters after 30 days; one about somebody who was erased can be removed before. Which of them were
replayed, or removed a while ago and not yet cleaned away, is for the caller to remember.
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

from shared.bus.aiokafka_patch import take_any_header_names
from shared.bus.producer import BusDown, Producer
from shared.bus.topics import TOPICS, Topic, dead
from shared.dead_letters.letters import DeadLetter
from shared.dead_letters.reading import ASK_SECONDS, CHUNK, Backwards, Chosen, Reader, newest_of
from shared.sealing import Sealer

SCAN_RECORDS: Final = 20_000
READERS: Final = 4
"""Calls that read at once; others wait. A chunk of the largest letters takes 64 MiB of memory."""
PAGE_BYTES: Final = 256 * 1024
"""What a page's letters hold at most, as they lie on Kafka; one letter more than that is a page of its own."""


class WrongCursor(Exception):
    """No page of ours ended so."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some letters, and where the next ones are; None after the last."""

    letters: list[DeadLetter]
    next_cursor: str | None


class DeadLetterTopics:
    """The dead letters of all services.

    Args:
        bootstrap: ``host:port`` of brokers, separated by commas.
        prefix: leads every topic's name.
        topics: those whose letters there may be; Nest's own by default.
        sealer: opens letters; without one, only that and why they were put aside can be told.
        scan_records: how many records one call looks at, more or less.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        prefix: str,
        topics: Iterable[Topic] = TOPICS,
        sealer: Sealer | None = None,
        scan_records: int = SCAN_RECORDS,
    ) -> None:
        take_any_header_names()
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._topics = sorted(topic.name for topic in topics if topic.consumed)
        self._sealer = sealer
        self._scan_records = scan_records
        self._room = asyncio.Semaphore(READERS)

    def service(self, letter: DeadLetter) -> str:
        """Who put a letter aside: its consumer group without the prefix."""
        return letter.group.removeprefix(self._prefix)

    async def newest(self, chosen: Chosen, *, topic: str | None, limit: int, cursor: str | None) -> Page:
        """The letters that are meant, the newest first.

        A page may have fewer than ``limit`` and still a next one, when many had to be looked at.

        Args:
            chosen: which ones.
            topic: only those of this topic.
            limit: how many at most.
            cursor: where the page before ended.

        Raises:
            WrongCursor: no page ended so.
            BusDown: Kafka can't be read.
        """
        async with self._reading(topic) as reader:
            ends = reader.ends
            if cursor is not None:
                known = _parsed(cursor)
                ends = {name: min(end, known.get(name, [0])[0]) for name, end in ends.items()}
            streams = [Backwards(reader, name, end, chosen) for name, end in ends.items()]
            letters: list[DeadLetter] = []
            size = 0
            while len(letters) < limit and (newest := await newest_of(streams)) is not None:
                size += _size(newest.head)
                if letters and size > PAGE_BYTES:
                    break
                letters.append(newest.take())
            at = {stream.topic: [stream.next] for stream in streams}
            done = all(stream.exhausted for stream in streams)
            return Page(letters, None if done else _written(at))

    async def oldest(self, chosen: Chosen, *, topic: str | None, limit: int, cursor: str | None) -> Page:
        """The letters that are meant, topic by topic, the oldest of each first, up to those there were at first.

        Args, Raises: as ``newest``.
        """
        async with self._reading(topic) as reader:
            spans: dict[str, list[int]] = {name: [start, reader.ends[name]] for name, start in reader.starts.items()}
            if cursor is not None:
                known = _parsed(cursor)
                # What was put aside since the first call is for another time: a replay may fail again. And who asks may
                # name an end that nothing has reached; to wait for it there would be to wait for ever.
                spans = {
                    name: [max(start, known.get(name, [end])[0]), min(end, known.get(name, [end])[-1])]
                    for name, (start, end) in spans.items()
                }
            letters: list[DeadLetter] = []
            size = 0
            for name, span in spans.items():
                while span[0] < span[1]:
                    if len(letters) >= limit or size > PAGE_BYTES or reader.tired:
                        return Page(letters, _written(spans))
                    for letter in await reader.read(name, span[0], min(span[0] + CHUNK, span[1])):
                        if len(letters) >= limit or size > PAGE_BYTES:
                            break
                        span[0] = letter.place + 1
                        if chosen(letter):
                            letters.append(letter)
                            size += _size(letter)
                    else:
                        span[0] = reader.position
            return Page(letters, None)

    async def these(self, ids: Iterable[str]) -> dict[str, DeadLetter]:
        """The letters that are still there, by their ids; those of each topic in the order in which they lie there.

        Raises:
            BusDown: Kafka can't be read.
        """
        places: dict[str, set[int]] = {}
        for one in ids:
            topic, _, number = one.rpartition(".")
            if topic in self._topics and number.isascii() and number.isdigit() and len(number) < 19:  # noqa: PLR2004
                places.setdefault(topic, set()).add(int(number))
        found: dict[str, DeadLetter] = {}
        async with self._reading(None) as reader:
            for topic in sorted(places.keys() & reader.ends.keys()):
                there = [one for one in sorted(places[topic]) if reader.starts[topic] <= one < reader.ends[topic]]
                while there:
                    # Neighbours come with one read.
                    near = [place for place in there if place < there[0] + CHUNK]
                    letters = await reader.read(topic, near[0], near[-1] + 1)
                    found.update({letter.id: letter for letter in letters if letter.place in places[topic]})
                    there = there[len(near) :]
        return found

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[Sender]:
        """What puts letters back, or removes them, for as long as the block lasts.

        Raises:
            BusDown: Kafka can't be reached.
        """
        producer = Producer(self._bootstrap, prefix=self._prefix, client_id="nest-dead-letters")
        try:
            await producer.start()
        except KafkaError as failure:
            raise BusDown(f"{type(failure).__name__}: {failure}") from failure
        try:
            yield Sender(producer)
        finally:
            await producer.stop()

    @asynccontextmanager
    async def _reading(self, topic: str | None) -> AsyncIterator[Reader]:
        async with self._room, self._connected(topic) as reader:
            yield reader

    @asynccontextmanager
    async def _connected(self, topic: str | None) -> AsyncIterator[Reader]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id="nest-dead-letters",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=100,
            request_timeout_ms=int(ASK_SECONDS * 1000),
        )
        try:
            async with asyncio.timeout(ASK_SECONDS):
                await consumer.start()
                there = await consumer.topics()
                wanted = [name for name in self._topics if topic in (None, name) and self._name(name) in there]
                reader = Reader(consumer, {name: self._name(name) for name in wanted}, self._sealer, self._scan_records)
                await reader.open()
            yield reader
        except (KafkaError, TimeoutError) as failure:
            raise BusDown(f"dead letters can't be read: {type(failure).__name__}") from failure
        finally:
            with suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(consumer.stop(), ASK_SECONDS)

    def _name(self, topic: str) -> str:
        return self._prefix + dead(topic)


class Sender:
    """Puts letters back on their topics, and removes them."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._partitions: dict[str, list[int]] = {}

    async def put_back(self, letter: DeadLetter, *, although_too_old_at: int | None = None) -> None:
        """Put a letter where it came from, as it came; returns when Kafka has it.

        Args:
            letter: one that knows its source.
            although_too_old_at: as for ``DeadLetter.replay``.

        Raises:
            BusDown: not acknowledged in time.
        """
        topic = letter.topic
        if topic not in self._partitions:
            self._partitions[topic] = await self._producer.partitions(topic)
        # Its own partition, whatever had chosen that one: there its key is in order with all that comes later.
        source = letter.source[0] if letter.source else None
        partition = source if source in self._partitions[topic] else None
        headers = letter.replay(although_too_old_at=although_too_old_at)
        await self._producer.send_record(topic, letter.value, headers, key=letter.key, partition=partition)

    async def remove(self, letter: DeadLetter) -> None:
        """Have Kafka remove a letter that is ``erasable``, at its next cleaning; returns when Kafka knows of it.

        Raises:
            BusDown: not acknowledged in time.
        """
        await self._producer.send_record(dead(letter.topic), None, [], key=letter.mark.encode())


def _size(letter: DeadLetter) -> int:
    """The bytes that a letter takes in a list, at most: of bodies and headers only the beginning is shown."""
    headers = sum(len(name) + len(value or b"") for name, value in letter.headers)
    return min(len(letter.value or b"") + headers, 16 * 1024) + len(letter.trace) + 512


def _written(at: Mapping[str, list[int]]) -> str:
    return base64.urlsafe_b64encode(json.dumps(at, separators=(",", ":")).encode()).decode().rstrip("=")


def _parsed(cursor: str) -> dict[str, list[int]]:
    try:
        said = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        raise WrongCursor from None
    if not isinstance(said, dict):
        raise WrongCursor
    for numbers in said.values():
        if not isinstance(numbers, list) or not 1 <= len(numbers) <= 2:  # noqa: PLR2004 -- one end, or a span
            raise WrongCursor
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise WrongCursor
    return said
