"""Rate-limit counters shared by many callers: counted in memory by each instance, merged through MongoDB.

If all uses of one IP prefix or app were counted in one document, every request would write it and wait for the others.
So each instance counts in memory, stores its counts every 0.4 s, and reads the counts of the other instances at the
same time. Before a decision it reads them again if they are older than 0.5 s. During an outage of MongoDB it decides on
the counts that it has, and stores its own afterwards.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

from services.auth.rate_limits.models import ZERO, Limit, Rule
from services.auth.rate_limits.store import CounterSlots
from shared.mongo import dependency_down
from shared.telemetry import log

EXCHANGE_SECONDS: Final = 0.4
"""Interval between two exchanges of counts."""
FRESH_SECONDS: Final = 0.5
"""Maximum age of the other instances' counts at a decision. With ``EXCHANGE_SECONDS``, a use is known everywhere within
a second."""
SYNC_TIMEOUT_SECONDS: Final = 1.0
"""How long a decision waits for the other instances' counts."""
IDLE_SECONDS: Final = 60.0
"""An unused counter is dropped from memory after this time; it can be read again."""
COUNTED_MESSAGE_SECONDS: Final = 60.0
"""How long a message is remembered as counted. A message that is retried comes back within seconds."""


class SharedCounter:
    """Uses of one subject under one rule, by slot.

    Attributes:
        own: counts of this instance.
        others: sum of the counts of the other instances.
        unsaved: slots whose own count is not stored yet.
        synced: monotonic time of the last read of the others' counts.
        last_used: monotonic time of the last use of the counter.
    """

    __slots__ = ("id", "last_used", "others", "own", "rule", "synced", "unsaved")

    def __init__(self, counter_id: str, rule: Rule) -> None:
        self.id = counter_id
        self.rule = rule
        self.own: dict[int, int] = defaultdict(int)
        self.others: dict[int, int] = {}
        self.unsaved: set[int] = set()
        self.synced = -FRESH_SECONDS
        self.last_used = 0.0

    def wait(self, at: datetime) -> timedelta:
        """Time until the rule allows one more use; zero if it allows one now."""
        if sum(self.own.values()) + sum(self.others.values()) < self.rule.count:
            return ZERO
        counts = dict(self.others)
        for slot, count in self.own.items():
            counts[slot] = counts.get(slot, 0) + count
        return self.rule.wait_by_slots(counts, at=at)

    def used(self, at: datetime) -> int:
        """Number of uses that count at a time."""
        slots = (*self.own.items(), *self.others.items())
        return sum(count for slot, count in slots if self.rule.slot_expires_at(slot) > at.timestamp())

    def count(self, at: datetime) -> None:
        """Count one use, and drop expired slots."""
        slot = self.rule.slot(at)
        if slot not in self.own:
            now = at.timestamp()
            for expired in [each for each in self.own if self.rule.slot_expires_at(each) <= now]:
                del self.own[expired]
                self.unsaved.discard(expired)
        self.own[slot] += 1
        self.unsaved.add(slot)

    def merge(self, counts: dict[int, dict[str, int]], instance: str) -> None:
        """Take over the stored counts.

        Stored counts of this instance are larger than those in memory if the counter had been dropped from memory.
        """
        self.others = {}
        for slot, by_instance in counts.items():
            own = by_instance.get(instance, 0)
            self.others[slot] = sum(by_instance.values()) - own
            if own > self.own.get(slot, 0):
                self.own[slot] = own


class SharedCounters:
    """The shared counters of one instance, exchanged with the other instances while ``running``."""

    def __init__(self, slots: CounterSlots) -> None:
        self._slots = slots
        self._instance = secrets.token_hex(6)
        self._stopping = asyncio.Event()
        self._in_use = asyncio.Event()
        """Set while there are counters, and at the end: at rest nothing is exchanged."""
        self._counters: dict[str, tuple[SharedCounter, ...]] = {}
        self._counted: set[tuple[str, str]] = set()
        self._counted_before: set[tuple[str, str]] = set()
        self._generation_began = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Exchange counts while the block runs, and once more at its end."""
        exchanging = asyncio.create_task(self._exchange_periodically())
        try:
            yield
        finally:
            # Not cancelled: pymongo may turn a cancellation into a lost connection, and the task would continue.
            self._stopping.set()
            self._in_use.set()
            await exchanging

    def of_subject(self, subject_id: str, limit: Limit) -> tuple[SharedCounter, ...]:
        """The counters of a subject, one for each rule of the limit."""
        counters = self._counters.get(subject_id)
        if counters is None:
            counters = self._counters[subject_id] = tuple(
                SharedCounter(f"{subject_id}:{rule.window.total_seconds():.0f}", rule) for rule in limit.rules
            )
            self._in_use.set()
        now = time.monotonic()
        for counter in counters:
            counter.last_used = now
        return counters

    def stale(self, counters: Collection[SharedCounter]) -> bool:
        """Whether the others' counts are too old for a decision."""
        oldest = time.monotonic() - FRESH_SECONDS
        return any(counter.synced <= oldest for counter in counters)

    def wait(self, counters: Collection[SharedCounter], message_id: str, *, at: datetime) -> timedelta:
        """Time until all counters allow one more use; zero for a message that is already counted."""
        if self._is_counted(counters, message_id):
            return ZERO
        return max((counter.wait(at) for counter in counters), default=ZERO)

    def count(self, counters: Collection[SharedCounter], message_id: str, *, at: datetime) -> None:
        """Count one use in each counter, unless this message is already counted because its handler runs again."""
        if not self._is_counted(counters, message_id):
            for counter in counters:
                counter.count(at)
                self._counted.add((message_id, counter.id))

    async def sync(self, counters: Collection[SharedCounter]) -> None:
        """Read the other instances' counts; after a timeout or during an outage, continue without them."""
        reads = asyncio.gather(*(self._read(counter) for counter in counters))
        try:
            async with asyncio.timeout(SYNC_TIMEOUT_SECONDS):
                await reads
        except TimeoutError:
            log.warning("rate limits use local counts only", error="TimeoutError")
        except Exception as failure:
            if not dependency_down(failure):
                raise
            log.warning("rate limits use local counts only", error=type(failure).__name__)
        # Set after a failure too, so that MongoDB is not read again at once.
        now = time.monotonic()
        for counter in counters:
            counter.synced = now

    def _is_counted(self, counters: Collection[SharedCounter], message_id: str) -> bool:
        for counter in counters:
            key = (message_id, counter.id)
            if key in self._counted:
                return True
            if key in self._counted_before:
                # The message is still being retried, for example during an outage of MongoDB: keep remembering it.
                self._counted.update((message_id, each.id) for each in counters)
                return True
        return False

    async def _read(self, counter: SharedCounter) -> None:
        began = time.monotonic()
        counter.merge(await self._slots.read(counter.id), self._instance)
        counter.synced = began

    async def _exchange_periodically(self) -> None:
        while not self._stopping.is_set():
            await self._in_use.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(EXCHANGE_SECONDS):
                    await self._stopping.wait()
            await self._exchange()
            self._drop_idle()
            if not self._counters:
                self._in_use.clear()

    async def _exchange(self) -> None:
        """Store the unsaved counts, and read those of the other instances."""
        now = time.monotonic()
        every = [counter for counters in self._counters.values() for counter in counters]
        in_use = [counter for counter in every if now - counter.last_used < 2 * EXCHANGE_SECONDS]
        saving = [(counter, slot, counter.own[slot]) for counter in every for slot in counter.unsaved]
        try:
            await self._slots.write(
                self._instance,
                [(counter.id, slot, count, counter.rule.slot_expires_at(slot)) for counter, slot, count in saving],
            )
            for counter, slot, count in saving:
                if counter.own.get(slot) == count:
                    counter.unsaved.discard(slot)
            await asyncio.gather(*(self._read(counter) for counter in in_use))
        except Exception as failure:  # noqa: BLE001 -- the next exchange tries again, whatever the error
            log.warning("rate-limit counts not exchanged", error=type(failure).__name__)

    def _drop_idle(self) -> None:
        now = time.monotonic()
        idle = [
            subject_id
            for subject_id, counters in self._counters.items()
            if all(not counter.unsaved and now - counter.last_used > IDLE_SECONDS for counter in counters)
        ]
        for subject_id in idle:
            del self._counters[subject_id]
        if now - self._generation_began > COUNTED_MESSAGE_SECONDS:
            self._counted, self._counted_before = set(), self._counted
            self._generation_began = now
