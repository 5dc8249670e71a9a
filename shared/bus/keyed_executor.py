"""How do many records run side by side while those of one key run one after the other?"""

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
class Taken:
    """A record, and the progress of its partition as it was when we took it: a rebalance makes another one."""

    record: Record
    progress: OffsetTracker

    @property
    def partition(self) -> TopicPartition:
        """Where it was."""
        return TopicPartition(self.record.topic, self.record.partition)


class KeyedExecutor:
    """Runs records side by side, those of one key one after the other.

    Args:
        run: brings one record to its end.
        limit: how many records may be taken and not finished; ``put`` waits beyond.
    """

    def __init__(self, run: Callable[[Taken], Awaitable[None]], limit: int) -> None:
        self._run = run
        self._limit = limit
        self._queues: dict[tuple[str, bytes], deque[Taken]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self.count = 0

    async def put(self, taken: Taken) -> None:
        """Take a record; waits while the limit is reached."""
        while self.count >= self._limit:
            self._room.clear()
            await self._room.wait()
        self.count += 1
        record = taken.record
        if not record.key:
            self._start(self._one(taken))
        elif (queue := self._queues.get((record.topic, record.key))) is not None:
            queue.append(taken)
        else:
            lane = (record.topic, record.key)
            self._queues[lane] = deque((taken,))
            self._start(self._in_order(lane))

    async def finished(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def release(self) -> None:
        """Let a waiting ``put`` through: it is over."""
        self._limit = 1 << 62
        self._room.set()

    def _start(self, lane: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(lane)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in_order(self, lane: tuple[str, bytes]) -> None:
        queue = self._queues[lane]
        try:
            while queue:
                await self._one(queue.popleft())
        finally:
            del self._queues[lane]

    async def _one(self, taken: Taken) -> None:
        try:
            await self._run(taken)
        finally:
            self.count -= 1
            self._room.set()
