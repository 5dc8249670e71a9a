"""Keyed executor: runs records concurrently, but records with the same key one at a time and in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from aiokafka import TopicPartition

from shared.bus.offset_tracker import OffsetTracker
from shared.messages import MESSAGES, Message, Query

Record = Any
"""An ``aiokafka.ConsumerRecord`` whose key and value are bytes."""
BACKLOG: Final = 16
"""Records that may wait for a slot, as a multiple of the slots. Queries behind them are still read and run."""
BACKLOG_BYTES: Final = 32 << 20
"""Bytes of the records that may wait for a slot; webhooks have up to some 100 KB."""
BACKGROUND_TURN: Final = 4
"""While callers wait for all slots, every fourth free one is given to a record that no caller waits for."""


class Kind(Enum):
    """How urgent a record is."""

    QUERY = auto()
    """A query. It has slots of its own, and no order relative to other records."""
    CALL = auto()
    """A command whose caller waits; started before those that no caller waits for."""
    BACKGROUND = auto()
    """Any other record."""


def kind_of(record: Record) -> Kind:
    """Return how urgent a record is, by its headers alone: its MAC is checked when it is delivered."""
    kind = Kind.BACKGROUND
    for name, value in record.headers:
        if name == "type" and issubclass(MESSAGES.get(value.decode(errors="replace"), Message), Query):
            return Kind.QUERY
        if name == "reply-to":
            kind = Kind.CALL
    return kind


@dataclass(frozen=True, slots=True)
class TrackedRecord:
    """A record and the tracker of its partition.

    The tracker is the one that was current when the record was fetched; a rebalance replaces it.
    """

    record: Record
    tracker: OffsetTracker
    kind: Kind = Kind.BACKGROUND

    @property
    def partition(self) -> TopicPartition:
        """Partition of the record."""
        return TopicPartition(self.record.topic, self.record.partition)


class _Key:
    """The records of one key that have not started, or one record without an order."""

    __slots__ = ("ordering", "records")

    def __init__(self, ordering: tuple[str, bytes] | None, first: TrackedRecord) -> None:
        self.ordering = ordering
        self.records = deque((first,))


class KeyedExecutor:
    """Runs records concurrently, those of one topic and key one after the other.

    ``limit`` queries and ``limit`` other records run at the same time, so that no query waits for a slot that a command
    holds. Further records wait; once ``BACKLOG`` is reached, ``submit`` waits.

    Attributes:
        count: number of unfinished records.
    """

    def __init__(self, run: Callable[[TrackedRecord], Awaitable[None]], limit: int) -> None:
        self._run = run
        self._limit = limit
        self._max_waiting = limit * BACKLOG
        self._keys: dict[tuple[str, bytes], _Key] = {}
        self._ready: dict[Kind, deque[_Key]] = {kind: deque() for kind in Kind}
        self._running_queries = 0
        self._running_others = 0
        self._turn = 0
        self._waiting = 0
        self._waiting_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = asyncio.Event()
        self.count = 0

    async def submit(self, tracked: TrackedRecord) -> None:
        """Accept a record; waits while the backlog is full."""
        while self._waiting >= self._max_waiting or self._waiting_bytes >= BACKLOG_BYTES:
            self._started.clear()
            await self._started.wait()
        self.count += 1
        self._waiting += 1
        self._waiting_bytes += _size(tracked)
        record = tracked.record
        ordering = (record.topic, record.key) if record.key and tracked.kind is not Kind.QUERY else None
        if ordering is not None and (known := self._keys.get(ordering)) is not None:
            known.records.append(tracked)
            return
        key = _Key(ordering, tracked)
        if ordering is not None:
            self._keys[ordering] = key
        self._ready[tracked.kind].append(key)
        self._start_ready()

    async def wait_idle(self) -> None:
        """Wait until every accepted record is finished."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def lift_limit(self) -> None:
        """Let a waiting ``submit`` continue, because the consumer is stopping."""
        self._max_waiting = 1 << 62
        self._started.set()

    def _start_ready(self) -> None:
        """Start waiting keys while there are free slots."""
        queries = self._ready[Kind.QUERY]
        while queries and self._running_queries < self._limit:
            self._running_queries += 1
            self._start(self._run_query(queries.popleft()))
        while self._running_others < self._limit and (key := self._next_key()) is not None:
            self._running_others += 1
            self._start(self._run_in_order(key))

    def _next_key(self) -> _Key | None:
        calls, background = self._ready[Kind.CALL], self._ready[Kind.BACKGROUND]
        if calls and background:
            self._turn = (self._turn + 1) % BACKGROUND_TURN
            return calls.popleft() if self._turn else background.popleft()
        return (calls or background).popleft() if calls or background else None

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_query(self, key: _Key) -> None:
        try:
            await self._run_one(key.records.popleft())
        finally:
            self._running_queries -= 1
            self._start_ready()

    async def _run_in_order(self, key: _Key) -> None:
        try:
            while key.records:
                await self._run_one(key.records.popleft())
        finally:
            if key.ordering is not None:
                del self._keys[key.ordering]
            self._running_others -= 1
            self._start_ready()

    async def _run_one(self, tracked: TrackedRecord) -> None:
        self._waiting -= 1
        self._waiting_bytes -= _size(tracked)
        self._started.set()
        try:
            await self._run(tracked)
        finally:
            self.count -= 1


def _size(tracked: TrackedRecord) -> int:
    return len(tracked.record.value or b"")
