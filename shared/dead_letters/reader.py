"""Reader of dead-letter topics: spans of offsets forwards, and scans from the newest dead letter to the oldest.

One instance serves one call of an operator. The number of records and the time of a call are bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from shared.bus.record_macs import RecordMacs
from shared.bus.topics import dead_letter_topic
from shared.dead_letters.records import DeadLetter, is_tombstone
from shared.sealing import Sealer

LetterFilter = Callable[[DeadLetter], bool]
"""Predicate that selects dead letters."""
CHUNK: Final = 32
"""Records read at once; each may have 2 MiB."""
SCAN_SECONDS: Final = 4.0
"""Time after which a call reads no further chunk; well below the time that its caller waits."""
KAFKA_SECONDS: Final = 10.0
"""Timeout of a request to Kafka."""


class DeadLetterReader:
    """Reads spans of dead-letter topics, each of which has a single partition.

    ``names`` are full topic names by source topic. Without a sealer, dead letters stay sealed, and without ``macs``
    their MACs are not checked. ``max_records`` is the number of records after which the budget of the call is used up.

    Attributes:
        starts: first offset of each topic.
        ends: offset after the last record of each topic.
        position: offset after the last span read.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        names: Mapping[str, str],
        sealer: Sealer | None,
        max_records: int,
        *,
        macs: RecordMacs | None,
    ) -> None:
        self._consumer = consumer
        self._sealer = sealer
        self._macs = macs
        self._partitions = {topic: TopicPartition(name, 0) for topic, name in names.items()}
        self._scan_until = time.monotonic() + SCAN_SECONDS
        self._remaining = max_records
        self.starts: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.position = 0

    async def open(self) -> None:
        """Assign the partitions and look up where they start and end."""
        partitions = list(self._partitions.values())
        if not partitions:
            return
        self._consumer.assign(partitions)
        # Only the partition of the current span is fetched.
        self._consumer.pause(*partitions)
        starts = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        for partition in partitions:
            # aiokafka looks up the first position in the background; unless awaited, it would overwrite a later seek.
            await self._consumer.position(partition)
        self.starts = {topic: starts[partition] for topic, partition in self._partitions.items()}
        self.ends = {topic: ends[partition] for topic, partition in self._partitions.items()}

    @property
    def budget_used(self) -> bool:
        """True if this call has read its number of records or used its time."""
        return self._remaining <= 0 or time.monotonic() > self._scan_until

    async def read(self, topic: str, low: int, high: int) -> list[DeadLetter]:
        """Read the dead letters from offset ``low`` up to but not including ``high``.

        Raises:
            KafkaError, TimeoutError: Kafka did not return them.
        """
        partition = self._partitions[topic]
        self._consumer.seek(partition, low)
        self._consumer.resume(partition)
        letters: list[DeadLetter] = []
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                position = low
                while position < high:
                    batches: Any = await self._consumer.getmany(partition, timeout_ms=200, max_records=high - position)
                    records = [record for record in batches.get(partition, ()) if low <= record.offset < high]
                    letters += [self._letter(each, topic) for each in records if not is_tombstone(each)]
                    position = await self._consumer.position(partition)
        finally:
            self._consumer.pause(partition)
        self._remaining -= max(len(letters), 1)
        self.position = high
        return letters

    def _letter(self, record: ConsumerRecord, topic: str) -> DeadLetter:
        letter = DeadLetter.of(record, topic, self._sealer)
        problem = None if self._macs is None else self._macs.problem(dead_letter_topic(topic), record)
        return letter if problem is None else letter.refused(problem)


class NewestFirstScan:
    """The matching dead letters of one topic, from newest to oldest.

    ``next`` is the offset after the newest dead letter that was not taken yet; the next page starts there.
    """

    def __init__(self, reader: DeadLetterReader, topic: str, end: int, matches: LetterFilter) -> None:
        self.topic = topic
        self.next = max(end, reader.starts[topic])
        self._reader = reader
        self._start = reader.starts[topic]
        self._matches = matches
        self._buffer: list[DeadLetter] = []
        self._low = self.next

    @property
    def head(self) -> DeadLetter:
        """The newest dead letter that was not taken yet. Call ``fill`` first."""
        return self._buffer[-1]

    @property
    def exhausted(self) -> bool:
        """True if no dead letters are left."""
        return not self._buffer and self._low <= self._start

    def take(self) -> DeadLetter:
        """Remove and return ``head``."""
        letter = self._buffer.pop()
        self.next = letter.offset if self._buffer else self._low
        return letter

    async def fill(self) -> bool:
        """Read until ``head`` is available; return False if there is none or the budget is used up."""
        while not self._buffer and self._low > self._start and not self._reader.budget_used:
            low = max(self._start, self._low - CHUNK)
            self._buffer = [
                letter for letter in await self._reader.read(self.topic, low, self._low) if self._matches(letter)
            ]
            self._low = low
            self.next = self._buffer[-1].offset + 1 if self._buffer else low
        return bool(self._buffer)


async def newest_of(scans: Iterable[NewestFirstScan]) -> NewestFirstScan | None:
    """Return the scan with the newest head; None if no scan has one."""
    filled = [scan for scan in scans if await scan.fill()]
    return max(filled, key=lambda scan: scan.head.written_at.timestamp() if scan.head.written_at else 0.0, default=None)
