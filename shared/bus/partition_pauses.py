"""Pauses of single partitions of a consumer: after ten dead letters in a row, and while too many records wait.

A fault in a release, or in whatever sends to one partition, must not stop the other partitions. The records of a paused
partition wait on Kafka until an operator resumes it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol

from aiokafka import TopicPartition

from shared.bus.offset_tracker import OffsetTracker
from shared.bus.paused_partitions import PauseAnnouncements
from shared.messages.auth.partitions import PartitionResumed, PausedPartitionView, partition_id
from shared.metrics import PAUSED
from shared.telemetry import log

MAX_CONSECUTIVE_DEAD_LETTERS: Final = 10
"""After so many in a row on one partition it is paused: the fault is in the service or in the sender."""
MAX_POSTPONED: Final = 1_000
"""Postponed records of one partition, after which no more are fetched from it."""
MAX_POSTPONED_BYTES: Final = 1 << 20
MAX_TRACKED: Final = 20_000
"""Records of one partition after its first unfinished one, after which no more are fetched from it. After a restart all
of them are delivered again, and the inbox absorbs them."""


class PausableConsumer(Protocol):
    """What a consumer offers for pauses."""

    @property
    def trackers(self) -> dict[TopicPartition, OffsetTracker]:
        """The unfinished records of each assigned partition."""

    def stop_fetching(self, partition: TopicPartition) -> None:
        """Fetch no more records of an assigned partition."""

    def fetch(self, partition: TopicPartition, offset: int | None = None) -> None:
        """Fetch its records again, from an offset or from the current position."""

    async def wait_for_running(self, tracker: OffsetTracker) -> None:
        """Wait until no record of a tracker is being handled."""

    def postponed(self, partition: TopicPartition) -> tuple[int, int]:
        """Return the number and the bytes of its postponed records."""

    def retry_postponed(self) -> None:
        """Try the postponed records now; those of closed trackers are dropped."""


@dataclass(frozen=True, slots=True)
class _Pause:
    """Why a partition is paused, and since when, monotonic seconds."""

    reason: str
    since: float


class PartitionPauses:
    """The pauses of one consumer's partitions.

    Args:
        announcements: pauses of all instances of the service, and the operators' orders to end them.
        service: service name, for metrics.
        prefix: prefix of every topic name.
        patience: seconds for which a paused partition is no problem of the health check.
    """

    def __init__(self, announcements: PauseAnnouncements, *, service: str, prefix: str, patience: float) -> None:
        self._announcements = announcements
        self._service = service
        self._prefix = prefix
        self._patience = patience
        self._consumer: PausableConsumer | None = None
        self._paused: dict[TopicPartition, _Pause] = {}
        self._held: set[TopicPartition] = set()
        self._dead_letters: Counter[TopicPartition] = Counter()
        self._tolerant: set[TopicPartition] = set()
        self._resuming: dict[TopicPartition, asyncio.Task[None]] = {}
        self._gauged: set[TopicPartition] = set()

    def attach(self, consumer: PausableConsumer) -> None:
        """Begin to pause the partitions of a consumer."""
        self._consumer = consumer
        self._announcements.on_paused = self._on_paused
        self._announcements.on_resumed = self._on_resumed

    @property
    def waiting(self) -> frozenset[TopicPartition]:
        """Partitions whose records are known to wait."""
        consumer = self._consumer
        postponed = () if consumer is None else (each for each in consumer.trackers if consumer.postponed(each)[0])
        return frozenset((*self._paused, *self._held, *postponed))

    @property
    def holds_back(self) -> bool:
        """Whether too many records of a partition wait, so that it is not fetched."""
        return bool(self._held)

    def problems(self) -> list[str]:
        """Return the partitions that have been paused for a while with their reasons, a sentence each."""
        return self._paused_for(self._patience)

    def all_paused(self) -> list[str]:
        """Return the paused partitions, likewise, if every assigned one is paused; else none."""
        trackers = {} if self._consumer is None else self._consumer.trackers
        return self._paused_for(0) if self._paused.keys() >= trackers.keys() else []

    def _paused_for(self, seconds: float) -> list[str]:
        now = time.monotonic()
        return [
            f"{partition.topic}/{partition.partition} is paused: {pause.reason}"
            for partition, pause in sorted(self._paused.items())
            if now - pause.since >= seconds
        ]

    def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Take over assigned partitions, instead of the former ones: those that an instance has paused stay paused.

        A pause by another release ends, because this release may not have the fault.
        """
        for partition in set(self._gauged):
            self._gauge(partition, None)
        for task in self._resuming.values():
            task.cancel()
        self._paused, self._held, self._tolerant = {}, set(), set()
        self._dead_letters.clear()
        for partition in partitions:
            self._gauge(partition, 0)
            pause = self._announcements.find(self._id(partition))
            if pause is None:
                continue
            if pause.release == self._announcements.release:
                self._pause(partition, pause.reason)
            else:
                log.warning("partition paused by another release", partition=pause.id, release=pause.release)
                self._announcements.resume(self._id(partition))

    def count(self, partition: TopicPartition, *, dead_lettered: bool) -> None:
        """Count a finished record; pause its partition after ten dead letters in a row."""
        if not dead_lettered:
            self._dead_letters.pop(partition, None)
            self._tolerant.discard(partition)
        elif partition not in self._tolerant:
            self._dead_letters[partition] += 1
            if self._dead_letters[partition] >= MAX_CONSECUTIVE_DEAD_LETTERS:
                self.pause(partition, f"{MAX_CONSECUTIVE_DEAD_LETTERS} dead letters in a row")

    def tolerates(self, partition: TopicPartition) -> bool:
        """Whether an operator wants the records of a partition that fail to become dead letters."""
        return partition in self._tolerant

    def pause(self, partition: TopicPartition, reason: str) -> None:
        """Handle no more records of a partition until an operator resumes it, and announce that."""
        tracker = None if self._consumer is None else self._consumer.trackers.get(partition)
        if tracker is None or tracker.closed:
            return
        self._pause(partition, reason)
        log.critical("partition paused", partition=self._id(partition), reason=reason)
        self._announcements.pause(self._id(partition), reason=reason, offset=tracker.first_unfinished)

    def hold_back(self, partitions: Collection[TopicPartition]) -> None:
        """Fetch no more records of partitions of which too many wait, for example for a newer release."""
        consumer = self._consumer
        for partition in partitions:
            if consumer is None or partition in self._held or partition in self._paused:
                continue
            number, size = consumer.postponed(partition)
            tracker = consumer.trackers.get(partition)
            if number >= MAX_POSTPONED or size >= MAX_POSTPONED_BYTES or (tracker and tracker.count >= MAX_TRACKED):
                consumer.stop_fetching(partition)
                self._held.add(partition)
                log.error("partition held back", partition=self._id(partition), postponed=number)

    def release_held(self) -> None:
        """Fetch again from partitions of which half as many records wait."""
        consumer = self._consumer
        for partition in list(self._held):
            tracker = None if consumer is None else consumer.trackers.get(partition)
            if consumer is None or tracker is None:
                continue
            number, size = consumer.postponed(partition)
            if number < MAX_POSTPONED / 2 and size < MAX_POSTPONED_BYTES / 2 and tracker.count < MAX_TRACKED / 2:
                self._held.discard(partition)
                consumer.fetch(partition)

    async def stop(self) -> None:
        """End what is under way."""
        for task in self._resuming.values():
            task.cancel()
        await asyncio.gather(*self._resuming.values(), return_exceptions=True)

    def _pause(self, partition: TopicPartition, reason: str) -> None:
        assert self._consumer is not None  # noqa: S101 -- only its partitions are paused
        self._consumer.trackers[partition].closed = True
        self._consumer.stop_fetching(partition)
        self._held.discard(partition)
        self._paused[partition] = _Pause(reason, time.monotonic())
        self._gauge(partition, 1)
        self._consumer.retry_postponed()

    def _on_paused(self, pause: PausedPartitionView) -> None:
        """Keep one of our partitions paused that another instance had when it paused it."""
        partition = self._ours(pause.id)
        if partition is not None and partition not in self._paused and pause.release == self._announcements.release:
            self._pause(partition, pause.reason)

    def _on_resumed(self, resumed: PartitionResumed) -> None:
        partition = self._ours(resumed.id)
        if self._consumer is None or partition not in self._paused or partition in self._resuming:
            return
        task = asyncio.create_task(self._resume(self._consumer, partition, dead_letter=resumed.dead_letter))
        self._resuming[partition] = task
        task.add_done_callback(lambda _: self._resuming.pop(partition, None))

    def _ours(self, partition: str) -> TopicPartition | None:
        """Return the partition with this ID if it is assigned to our consumer."""
        trackers = {} if self._consumer is None else self._consumer.trackers
        return next((each for each in trackers if self._id(each) == partition), None)

    async def _resume(self, consumer: PausableConsumer, partition: TopicPartition, *, dead_letter: bool) -> None:
        """Read the partition again from its first unfinished record."""
        tracker = consumer.trackers[partition]
        await consumer.wait_for_running(tracker)
        if consumer.trackers.get(partition) is not tracker:
            return
        successor = consumer.trackers[partition] = tracker.successor()
        self._dead_letters.pop(partition, None)
        if dead_letter:
            self._tolerant.add(partition)
        del self._paused[partition]
        self._gauge(partition, 0)
        consumer.fetch(partition, successor.first_unfinished)
        log.warning("partition resumed", partition=self._id(partition), dead_letter=dead_letter)

    def _id(self, partition: TopicPartition) -> str:
        return partition_id(self._service, partition.topic.removeprefix(self._prefix), partition.partition)

    def _gauge(self, partition: TopicPartition, value: int | None) -> None:
        labels = (self._service, partition.topic.removeprefix(self._prefix), str(partition.partition))
        if value is None:
            PAUSED.remove(*labels)
            self._gauged.discard(partition)
        else:
            PAUSED.labels(*labels).set(value)
            self._gauged.add(partition)
