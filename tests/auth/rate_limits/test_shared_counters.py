"""Shared counters of several instances, one exchange at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from services.auth.rate_limits import shared_counters
from services.auth.rate_limits.models import ZERO, Limit
from services.auth.rate_limits.shared_counters import SharedCounter, SharedCounters
from services.auth.rate_limits.store import CounterSlots
from tests.service_harness import ServiceHarness
from tests.stack import eventually

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
LIMIT = Limit.parse("3/1m")


class UnreliableSlots(CounterSlots):
    """Counter slots in a MongoDB that can be down or hang."""

    def __init__(self, database: Any) -> None:
        super().__init__(database)
        self.down = False
        self.hangs = False
        self.reads = 0
        self.writes = 0

    async def read(self, counter_id: str) -> dict[int, dict[str, int]]:
        self.reads += 1
        if self.hangs:
            await asyncio.sleep(60)
        if self.down:
            raise AutoReconnect
        return await super().read(counter_id)

    async def write(self, instance: str, counts: Iterable[tuple[str, int, int, float]]) -> None:
        self.writes += 1
        if self.down:
            raise AutoReconnect
        await super().write(instance, counts)


@pytest.fixture
def slots(harness: ServiceHarness) -> UnreliableSlots:
    return UnreliableSlots(harness.database)


@asynccontextmanager
async def instance(slots: CounterSlots) -> AsyncIterator[SharedCounters]:
    counters = SharedCounters(slots)
    async with counters.running():
        yield counters


async def synced(counters: SharedCounters, limit: Limit = LIMIT) -> tuple[SharedCounter, ...]:
    """The counters of one subject, synced as for a decision."""
    of_subject = counters.of_subject("subject", limit)
    if counters.stale(of_subject):
        await counters.sync(of_subject)
    return of_subject


async def count(counters: SharedCounters, *messages: str, at: datetime = NOW) -> None:
    for message in messages:
        counters.count(await synced(counters), message, at=at)


async def wait(counters: SharedCounters, message: str = "another", at: datetime = NOW) -> timedelta:
    return counters.wait(await synced(counters), message, at=at)


async def test_counted_message_is_counted_once_and_allowed_again(slots: UnreliableSlots) -> None:
    async with instance(slots) as counters:
        await count(counters, "a", "a", "a", "b", "c")
        assert await wait(counters) > ZERO
        assert await wait(counters, "a") == ZERO


async def test_counts_reach_other_instances_and_outlive_their_own(slots: UnreliableSlots) -> None:
    async with instance(slots) as first:
        await count(first, "a", "b")
    async with instance(slots) as second:
        await count(second, "c")
        assert await wait(second) > ZERO
        assert await wait(second, at=NOW + timedelta(minutes=2)) == ZERO


async def test_repeated_exchange_stores_the_same_counts(slots: UnreliableSlots) -> None:
    async with instance(slots) as counters:
        await count(counters, "a", "b")
        [counter] = await synced(counters)
        for _ in range(3):
            counter.unsaved.update(counter.own)
            await counters._exchange()
        assert sum(sum(counts.values()) for counts in (await slots.read(counter.id)).values()) == 2
    async with instance(slots) as other:
        assert await wait(other) == ZERO


async def test_every_rule_of_a_limit_has_a_counter(slots: UnreliableSlots) -> None:
    limit = Limit.parse("2/1m, 3/1h")
    async with instance(slots) as counters:
        for number in range(3):
            at = NOW + timedelta(minutes=2 * number)
            of_subject = await synced(counters, limit)
            assert counters.wait(of_subject, f"{number}", at=at) == ZERO
            counters.count(of_subject, f"{number}", at=at)
        late = NOW + timedelta(minutes=10)
        assert counters.wait(await synced(counters, limit), "late", at=late) > timedelta(minutes=40)


async def test_limit_holds_on_local_counts_while_mongodb_is_down(slots: UnreliableSlots) -> None:
    async with instance(slots) as other:
        await count(other, "a")
    async with instance(slots) as counters:
        await count(counters, "b")
        slots.down = True
        await count(counters, "c")
        # One use of the other instance and two of this one.
        assert await wait(counters) > ZERO
        for counter in await synced(counters):
            counter.synced = 0.0
        assert await wait(counters) > ZERO
        slots.down = False
    async with instance(slots) as later:
        assert await wait(later) > ZERO


async def test_unknown_subject_is_allowed_while_mongodb_is_down(slots: UnreliableSlots) -> None:
    slots.down = True
    async with instance(slots) as counters:
        assert await wait(counters) == ZERO
        await count(counters, "a", "b", "c")
        assert await wait(counters) > ZERO
        slots.down = False


async def test_hanging_mongodb_delays_decisions_once_and_briefly(
    slots: UnreliableSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_counters, "SYNC_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(shared_counters, "FRESH_SECONDS", 60.0)
    slots.hangs = True
    counters = SharedCounters(slots)
    began = time.monotonic()
    await asyncio.gather(*(wait(counters) for _ in range(3)))
    await wait(counters)
    assert time.monotonic() - began < 20
    assert slots.reads == 3


async def test_bug_is_not_treated_as_an_outage(slots: UnreliableSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_counter_id: str) -> dict[int, dict[str, int]]:
        raise TypeError("a bug")

    monkeypatch.setattr(slots, "read", broken)
    with pytest.raises(TypeError):
        await wait(SharedCounters(slots))


async def test_idle_counter_is_dropped_and_read_again(slots: UnreliableSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_counters, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(shared_counters, "EXCHANGE_SECONDS", 0.02)
    async with instance(slots) as counters:
        await count(counters, "a", "b", "c")
        await eventually(lambda: not counters._counters, within=10)
        assert await wait(counters) > ZERO


async def test_expired_slots_are_dropped(slots: UnreliableSlots) -> None:
    counters = SharedCounters(slots)
    for minute in range(20):
        await count(counters, f"{minute}", at=NOW + timedelta(minutes=minute))
    [counter] = counters.of_subject("subject", LIMIT)
    assert len(counter.own) <= 2
    assert counter.unsaved <= set(counter.own)


async def test_counted_messages_are_remembered_longer_if_they_repeat(
    slots: UnreliableSlots, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = SharedCounters(slots)
    await count(counters, "a", "b")
    monkeypatch.setattr(shared_counters, "COUNTED_MESSAGE_SECONDS", 0.0)
    for _ in range(5):
        counters._drop_idle()
        await count(counters, "a")
    assert {message for message, _ in counters._counted | counters._counted_before} == {"a"}
    [counter] = counters.of_subject("subject", LIMIT)
    assert sum(counter.own.values()) == 2


async def test_nothing_is_exchanged_at_rest(slots: UnreliableSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_counters, "EXCHANGE_SECONDS", 0.01)
    monkeypatch.setattr(shared_counters, "IDLE_SECONDS", 0.0)

    async def stored() -> bool:
        return bool(await slots.read(counter.id)) and not counters._counters

    async with instance(slots) as counters:
        await asyncio.sleep(0.2)
        assert slots.writes == 0
        for number in range(2):
            await count(counters, str(number))
            [counter] = counters._counters["subject"]
            await eventually(stored, what="the end of the exchange")
            before = slots.writes
            await asyncio.sleep(0.2)
            assert slots.writes == before > number
