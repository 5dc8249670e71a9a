"""Keyed executor: runs records concurrently, but records with the same key one at a time and in order."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition

from shared.bus.offset_tracker import OffsetTracker
from shared.messages import is_query

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
        if name == "type" and is_query(value.decode(errors="replace")):
            return Kind.QUERY
        if name == "reply-to":
            kind = Kind.CALL
    return kind


class TrackedRecord(NamedTuple):
    """A record, its partition, the partition's tracker, and how urgent it is.

    The tracker is the one that was current when the record was fetched; a rebalance replaces it.
    """

    record: Record
    partition: TopicPartition
    tracker: OffsetTracker
    kind: Kind


class Postponed(Exception):
    """The record can't be handled now. It and those of its key wait for ``seconds``, without a slot."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"postponed for {seconds:g} s")
        self.seconds = seconds


class _Key:
    """The records of one key that have not started, or one record without an order.

    ``retry`` is the timer of a postponed key; None if it is not postponed.
    """

    __slots__ = ("kind", "ordering", "records", "retry")

    def __init__(self, ordering: tuple[str, bytes] | None, first: TrackedRecord) -> None:
        self.ordering = ordering
        self.records = deque((first,))
        self.kind = first.kind
        self.retry: asyncio.TimerHandle | None = None


class KeyedExecutor:
    """Runs records concurrently, those of one topic and key one after the other.

    ``limit`` queries and ``limit`` other records run at the same time, so that no query waits for a slot that a command
    holds. Further records wait; once ``BACKLOG`` is reached, ``submit`` waits. Records of a postponed key are not part
    of the backlog, so that they delay no other key; the caller limits their number.

    Attributes:
        count: number of unfinished records.
        postponed: number of records of postponed keys, by partition.
        postponed_bytes: their size, by partition.
    """

    def __init__(self, run: Callable[[TrackedRecord], Awaitable[None]], limit: int) -> None:
        self._run = run
        self._limit = limit
        self._max_waiting = limit * BACKLOG
        self._keys: dict[tuple[str, bytes], _Key] = {}
        self._queries: deque[_Key] = deque()
        self._calls: deque[_Key] = deque()
        self._background: deque[_Key] = deque()
        self._running_queries = 0
        self._running_others = 0
        self._turn = 0
        self._waiting = 0
        self._waiting_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = asyncio.Event()
        self._postponed_keys: set[_Key] = set()
        self.postponed: Counter[TopicPartition] = Counter()
        self.postponed_bytes: Counter[TopicPartition] = Counter()
        self.count = 0

    async def submit(self, tracked: TrackedRecord) -> None:
        """Accept a record; waits while the backlog is full."""
        while self._waiting >= self._max_waiting or self._waiting_bytes >= BACKLOG_BYTES:
            self._started.clear()
            await self._started.wait()
        self.count += 1
        record = tracked.record
        ordering = (record.topic, record.key) if record.key and tracked.kind is not Kind.QUERY else None
        if ordering is not None and (known := self._keys.get(ordering)) is not None:
            known.records.append(tracked)
            self._account(tracked, 1, postponed=known.retry is not None)
            return
        self._account(tracked, 1)
        key = _Key(ordering, tracked)
        if ordering is not None:
            self._keys[ordering] = key
        self._await_slot(key)

    async def wait_idle(self) -> None:
        """Wait until every accepted record is finished."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def retry_postponed(self) -> None:
        """Try all postponed records now."""
        for key in list(self._postponed_keys):
            self._retry(key)

    def lift_limit(self) -> None:
        """Let a waiting ``submit`` continue, because the consumer is stopping."""
        self._max_waiting = 1 << 62
        self._started.set()

    def _await_slot(self, key: _Key) -> None:
        """Start a key as soon as there is a free slot for it."""
        if key.kind is Kind.QUERY:
            self._queries.append(key)
        elif key.kind is Kind.CALL:
            self._calls.append(key)
        else:
            self._background.append(key)
        self._start_ready()

    def _start_ready(self) -> None:
        """Start waiting keys while there are free slots."""
        while self._queries and self._running_queries < self._limit:
            self._running_queries += 1
            self._start(self._run_query(self._queries.popleft()))
        while self._running_others < self._limit and (key := self._next_key()) is not None:
            self._running_others += 1
            self._start(self._run_in_order(key))

    def _next_key(self) -> _Key | None:
        calls, background = self._calls, self._background
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
            await self._run_first(key)
        finally:
            self._running_queries -= 1
            self._start_ready()

    async def _run_in_order(self, key: _Key) -> None:
        try:
            while key.records and key.retry is None:
                await self._run_first(key)
        finally:
            if key.ordering is not None and key.retry is None:
                del self._keys[key.ordering]
            self._running_others -= 1
            self._start_ready()

    async def _run_first(self, key: _Key) -> None:
        """Run the first record of a key, or postpone the key."""
        tracked = key.records.popleft()
        self._account(tracked, -1)
        self._started.set()
        try:
            await self._run(tracked)
        except Postponed as postponed:
            for waiting in key.records:
                self._account(waiting, -1)
            key.records.appendleft(tracked)
            for waiting in key.records:
                self._account(waiting, 1, postponed=True)
            key.retry = asyncio.get_running_loop().call_later(postponed.seconds, self._retry, key)
            self._postponed_keys.add(key)
        except BaseException:
            self.count -= 1
            raise
        else:
            self.count -= 1

    def _retry(self, key: _Key) -> None:
        assert key.retry is not None  # noqa: S101 -- it is postponed
        key.retry.cancel()
        key.retry = None
        self._postponed_keys.discard(key)
        for waiting in key.records:
            self._account(waiting, -1, postponed=True)
            self._account(waiting, 1)
        self._await_slot(key)

    def _account(self, tracked: TrackedRecord, number: int, *, postponed: bool = False) -> None:
        """Add a record to the backlog or to the postponed records, or remove it."""
        size = number * _size(tracked)
        if postponed:
            self.postponed[tracked.partition] += number
            self.postponed_bytes[tracked.partition] += size
        else:
            self._waiting += number
            self._waiting_bytes += size


def _size(tracked: TrackedRecord) -> int:
    return len(tracked.record.value or b"")
