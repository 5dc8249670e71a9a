"""How are spans of dead-letter topics read, forwards and from their ends? A chunk at a time, within bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from shared.dead_letters.letters import DeadLetter, is_removal
from shared.sealing import Sealer

Chosen = Callable[[DeadLetter], bool]
"""Whether a letter is meant."""
CHUNK: Final = 32
"""Records that are read at once: each may have 2 MiB."""
SCAN_SECONDS: Final = 4.0
"""How long one call looks for letters: well below the time that its caller waits."""
ASK_SECONDS: Final = 10.0
"""How long Kafka may take to answer."""


class Reader:
    """Reads spans of dead-letter topics.

    Attributes:
        starts: the first offset of each topic.
        ends: the offset behind the last of each.
        position: the offset behind the last span that was read.
    """

    def __init__(self, consumer: AIOKafkaConsumer, names: Mapping[str, str], sealer: Sealer | None, most: int) -> None:
        self._consumer = consumer
        self._sealer = sealer
        self._partitions = {topic: TopicPartition(name, 0) for topic, name in names.items()}
        self._until = time.monotonic() + SCAN_SECONDS
        self._most = most
        self.starts: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.position = 0

    async def open(self) -> None:
        """Ask where the topics begin and end."""
        partitions = list(self._partitions.values())
        if not partitions:
            return
        self._consumer.assign(partitions)
        # Only the one that is being read is fetched from.
        self._consumer.pause(*partitions)
        starts = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        for partition in partitions:
            # Its first position is looked up aside, and would come over one that was sought meanwhile.
            await self._consumer.position(partition)
        self.starts = {topic: starts[partition] for topic, partition in self._partitions.items()}
        self.ends = {topic: ends[partition] for topic, partition in self._partitions.items()}

    @property
    def tired(self) -> bool:
        """Whether this call has looked at enough."""
        return self._most <= 0 or time.monotonic() > self._until

    async def read(self, topic: str, low: int, high: int) -> list[DeadLetter]:
        """The letters from ``low`` up to before ``high``, as they lie.

        Raises:
            KafkaError, TimeoutError: Kafka does not give them.
        """
        partition = self._partitions[topic]
        self._consumer.seek(partition, low)
        self._consumer.resume(partition)
        letters: list[DeadLetter] = []
        try:
            async with asyncio.timeout(ASK_SECONDS):
                position = low
                while position < high:
                    found: Any = await self._consumer.getmany(partition, timeout_ms=200, max_records=high - position)
                    records = [record for record in found.get(partition, ()) if low <= record.offset < high]
                    letters += [DeadLetter.of(each, topic, self._sealer) for each in records if not is_removal(each)]
                    position = await self._consumer.position(partition)
        finally:
            self._consumer.pause(partition)
        self._most -= max(len(letters), 1)
        self.position = high
        return letters


class Backwards:
    """The letters of one topic that are meant, from its end on.

    Attributes:
        next: the offset behind the newest letter that was not taken yet.
    """

    def __init__(self, reader: Reader, topic: str, end: int, chosen: Chosen) -> None:
        self.topic = topic
        self.next = max(end, reader.starts[topic])
        self._reader = reader
        self._start = reader.starts[topic]
        self._chosen = chosen
        self._found: list[DeadLetter] = []
        self._low = self.next

    @property
    def head(self) -> DeadLetter:
        """The newest letter that was not taken yet; ``filled`` first."""
        return self._found[-1]

    @property
    def exhausted(self) -> bool:
        """Whether there are no more."""
        return not self._found and self._low <= self._start

    def take(self) -> DeadLetter:
        """The newest letter that was not taken yet."""
        letter = self._found.pop()
        self.next = letter.place if self._found else self._low
        return letter

    async def filled(self) -> bool:
        """Look on until there is a letter; False when there is none, or the call has looked at enough."""
        while not self._found and self._low > self._start and not self._reader.tired:
            low = max(self._start, self._low - CHUNK)
            self._found = [
                letter for letter in await self._reader.read(self.topic, low, self._low) if self._chosen(letter)
            ]
            self._low = low
            self.next = self._found[-1].place + 1 if self._found else low
        return bool(self._found)


async def newest_of(streams: Iterable[Backwards]) -> Backwards | None:
    """The stream whose next letter is the newest of all; None when there is none."""
    filled = [stream for stream in streams if await stream.filled()]
    return max(filled, key=lambda stream: stream.head.at.timestamp() if stream.head.at else 0.0, default=None)
