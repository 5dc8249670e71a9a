"""Keyed executor: runs records concurrently, but records with the same key one at a time and in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition

from shared.bus.offset_tracker import OffsetTracker

Record = Any
"""An ``aiokafka.ConsumerRecord`` whose key and value are bytes."""


@dataclass(frozen=True, slots=True)
class TrackedRecord:
    """A record and the tracker of its partition.

    The tracker is the one that was current when the record was fetched; a rebalance replaces it.
    """

    record: Record
    tracker: OffsetTracker

    @property
    def partition(self) -> TopicPartition:
        """Partition of the record."""
        return TopicPartition(self.record.topic, self.record.partition)


class KeyedExecutor:
    """Runs records concurrently, those of one topic and key one after the other.

    While ``count``, the number of unfinished records, has reached ``limit``, ``submit`` waits.
    """

    def __init__(self, run: Callable[[TrackedRecord], Awaitable[None]], limit: int) -> None:
        self._run = run
        self._limit = limit
        self._queues: dict[tuple[str, bytes], deque[TrackedRecord]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._below_limit = asyncio.Event()
        self.count = 0

    async def submit(self, tracked: TrackedRecord) -> None:
        """Accept a record; waits while the limit is reached."""
        while self.count >= self._limit:
            self._below_limit.clear()
            await self._below_limit.wait()
        self.count += 1
        record = tracked.record
        if not record.key:
            self._start(self._run_one(tracked))
        elif (queue := self._queues.get((record.topic, record.key))) is not None:
            queue.append(tracked)
        else:
            ordering = (record.topic, record.key)
            self._queues[ordering] = deque((tracked,))
            self._start(self._run_in_order(ordering))

    async def wait_idle(self) -> None:
        """Wait until every accepted record is finished."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def lift_limit(self) -> None:
        """Let a waiting ``submit`` continue, because the consumer is stopping."""
        self._limit = 1 << 62
        self._below_limit.set()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_in_order(self, ordering: tuple[str, bytes]) -> None:
        queue = self._queues[ordering]
        try:
            while queue:
                await self._run_one(queue.popleft())
        finally:
            del self._queues[ordering]

    async def _run_one(self, tracked: TrackedRecord) -> None:
        try:
            await self._run(tracked)
        finally:
            self.count -= 1
            self._below_limit.set()
