"""How is counted what many people share? In memory by each instance, and merged through MongoDB within a second.

One document for an IP prefix or an app would be written by every order at once, and each would wait for the others. So
an instance counts by itself, stores its counts twice a second or so, and reads those of the others when it does. What
it has not asked about for half a second it asks about before it decides. While MongoDB is away it goes on with what it
knows, and stores its counts afterwards.
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

from services.auth.rate_limits.models import NONE, Limit, Rule
from services.auth.rate_limits.store import CounterSlots
from shared.mongo import dependency_down
from shared.telemetry import log

EXCHANGE_SECONDS: Final = 0.4
FRESH_SECONDS: Final = 0.5
"""How old the others' counts may be when they decide. With the pause above a use is known everywhere in a second."""
PATIENCE_SECONDS: Final = 1.0
"""How long a decision waits for the others' counts."""
IDLE_SECONDS: Final = 60.0
"""After so long without a question a series is dropped from memory; it can be read again."""
REMEMBERED_SECONDS: Final = 60.0
"""How long a message is known to have been counted: whatever runs again does so every second or so."""


class SharedCounter:
    """How often something was done, part of time by part of time.

    Attributes:
        id: names it in MongoDB.
        rule: what it is judged by.
        own: this instance's counts.
        others: the other instances' counts, all together.
        unsaved: the parts of time whose own count is not stored yet.
        synced: when the others' counts were asked for, by the monotonic clock.
        touched: when it was last asked about, by the same.
    """

    __slots__ = ("id", "others", "own", "rule", "synced", "touched", "unsaved")

    def __init__(self, id: str, rule: Rule) -> None:  # noqa: A002 -- the field's name
        self.id = id
        self.rule = rule
        self.own: dict[int, int] = defaultdict(int)
        self.others: dict[int, int] = {}
        self.unsaved: set[int] = set()
        self.synced = -FRESH_SECONDS
        self.touched = 0.0

    def wait(self, at: datetime) -> timedelta:
        """How long until there is room for one more."""
        if sum(self.own.values()) + sum(self.others.values()) < self.rule.count:
            return NONE
        counts = dict(self.others)
        for grain, count in self.own.items():
            counts[grain] = counts.get(grain, 0) + count
        return self.rule.wait_of_slots(counts, at=at)

    def count(self, at: datetime) -> None:
        """One more."""
        grain = self.rule.grain(at)
        if grain not in self.own:
            now = at.timestamp()
            for past in [each for each in self.own if self.rule.grain_ends(each) <= now]:
                del self.own[past]
                self.unsaved.discard(past)
        self.own[grain] += 1
        self.unsaved.add(grain)

    def learn(self, counts: dict[int, dict[str, int]], instance: str) -> None:
        """Take over what is stored; of the own counts those from before they were dropped from memory."""
        self.others = {}
        for grain, by_instance in counts.items():
            mine = by_instance.get(instance, 0)
            self.others[grain] = sum(by_instance.values()) - mine
            if mine > self.own.get(grain, 0):
                self.own[grain] = mine


class SharedCounters:
    """The counts of one instance, exchanged with the others while ``running``.

    Args:
        tallies: where they are exchanged.
    """

    def __init__(self, tallies: CounterSlots) -> None:
        self._tallies = tallies
        self._instance = secrets.token_hex(6)
        self._over = asyncio.Event()
        self._series: dict[str, tuple[SharedCounter, ...]] = {}
        self._counted: set[tuple[str, str]] = set()
        self._counted_before: set[tuple[str, str]] = set()
        self._generation_began = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Exchange counts as long as the block lasts, and once more at its end."""
        exchanging = asyncio.create_task(self._exchange_regularly())
        try:
            yield
        finally:
            # Not cancelled: pymongo may make a lost connection of that, and the exchanging would go on.
            self._over.set()
            await exchanging

    def series(self, id: str, limit: Limit) -> tuple[SharedCounter, ...]:  # noqa: A002 -- the field's name
        """What is counted under an id, a series for each rule."""
        found = self._series.get(id)
        if found is None:
            found = self._series[id] = tuple(
                SharedCounter(f"{id}:{rule.within.total_seconds():.0f}", rule) for rule in limit.rules
            )
        now = time.monotonic()
        for series in found:
            series.touched = now
        return found

    def stale(self, series: Collection[SharedCounter]) -> bool:
        """Whether the others' counts are too old to decide."""
        oldest = time.monotonic() - FRESH_SECONDS
        return any(each.synced <= oldest for each in series)

    def wait(self, series: Collection[SharedCounter], message_id: str, *, at: datetime) -> timedelta:
        """How long until there is room for one more in all of these; none for a message that is counted already."""
        if self._knows(series, message_id):
            return NONE
        return max((each.wait(at) for each in series), default=NONE)

    def count(self, series: Collection[SharedCounter], message_id: str, *, at: datetime) -> None:
        """One more in each of these, unless this message was counted before: its handler runs again."""
        if not self._knows(series, message_id):
            for each in series:
                each.count(at)
                self._counted.add((message_id, each.id))

    def _knows(self, series: Collection[SharedCounter], message_id: str) -> bool:
        for each in series:
            key = (message_id, each.id)
            if key in self._counted:
                return True
            if key in self._counted_before:
                # It runs again and again, as while MongoDB is away: it stays known.
                self._counted.update((message_id, one.id) for one in series)
                return True
        return False

    async def sync(self, stale: Collection[SharedCounter]) -> None:
        """Ask for the others' counts, and go on without them when there is no answer."""
        reads = asyncio.gather(*(self._read(series) for series in stale))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await reads
        except TimeoutError:
            log.warning("limits judged by this instance alone", error="TimeoutError")
        except Exception as failure:
            if not dependency_down(failure):
                raise
            log.warning("limits judged by this instance alone", error=type(failure).__name__)
        # Answered or not: MongoDB is not asked again at once.
        now = time.monotonic()
        for series in stale:
            series.synced = now

    async def _read(self, series: SharedCounter) -> None:
        began = time.monotonic()
        series.learn(await self._tallies.read(series.id), self._instance)
        series.synced = began

    async def _exchange_regularly(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(EXCHANGE_SECONDS):
                    await self._over.wait()
            await self._exchange()
            self._forget()

    async def _exchange(self) -> None:
        """Store what was counted, and read what the others have."""
        now = time.monotonic()
        every = [each for series in self._series.values() for each in series]
        touched = [series for series in every if now - series.touched < 2 * EXCHANGE_SECONDS]
        saving = [(series, grain, series.own[grain]) for series in every for grain in series.unsaved]
        try:
            await self._tallies.write(
                self._instance,
                [(series.id, grain, count, series.rule.grain_ends(grain)) for series, grain, count in saving],
            )
            for series, grain, count in saving:
                if series.own.get(grain) == count:
                    series.unsaved.discard(grain)
            await asyncio.gather(*(self._read(series) for series in touched))
        except Exception as failure:  # noqa: BLE001 -- the next exchange tries again, whatever it was
            log.warning("limits not exchanged", error=type(failure).__name__)

    def _forget(self) -> None:
        """Let go of what nobody asks about any more."""
        now = time.monotonic()
        idle = [
            id
            for id, series in self._series.items()  # noqa: A001 -- the field's name
            if all(not each.unsaved and now - each.touched > IDLE_SECONDS for each in series)
        ]
        for id in idle:  # noqa: A001 -- as above
            del self._series[id]
        if now - self._generation_began > REMEMBERED_SECONDS:
            self._counted, self._counted_before = set(), self._counted
            self._generation_began = now
