"""Counts that instances share, one exchange at a time."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from services.auth.rate_limits import shared_counters as meters_module
from services.auth.rate_limits.models import NONE, Limit
from services.auth.rate_limits.shared_counters import SharedCounter, SharedCounters
from services.auth.rate_limits.store import CounterSlots
from tests.service_harness import ServiceHarness
from tests.stack import eventually

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
LIMIT = Limit.parse("3/1m")


class Away(CounterSlots):
    """A MongoDB that comes and goes."""

    def __init__(self, database: Any) -> None:
        super().__init__(database)
        self.away = False
        self.hangs = False
        self.asked = 0

    async def read(self, series: str) -> dict[int, dict[str, int]]:
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(60)
        if self.away:
            raise AutoReconnect
        return await super().read(series)

    async def write(self, instance: str, counts: Iterable[tuple[str, int, int, float]]) -> None:
        if self.away:
            raise AutoReconnect
        await super().write(instance, counts)


@pytest.fixture
def tallies(harness: ServiceHarness) -> Away:
    return Away(harness.database)


@asynccontextmanager
async def instance(tallies: CounterSlots) -> AsyncIterator[SharedCounters]:
    meters = SharedCounters(tallies)
    async with meters.running():
        yield meters


async def asked(meters: SharedCounters, limit: Limit = LIMIT) -> tuple[SharedCounter, ...]:
    """The series of one subject, as fresh as a decision wants them."""
    series = meters.series("subject", limit)
    if meters.stale(series):
        await meters.sync(series)
    return series


async def count(meters: SharedCounters, *messages: str, at: datetime = NOW) -> None:
    for message in messages:
        meters.count(await asked(meters), message, at=at)


async def wait(meters: SharedCounters, message: str = "another", at: datetime = NOW) -> timedelta:
    return meters.wait(await asked(meters), message, at=at)


async def test_a_message_is_counted_once_and_passes_again(tallies: Away) -> None:
    async with instance(tallies) as meters:
        await count(meters, "a", "a", "a", "b", "c")
        assert await wait(meters) > NONE
        assert await wait(meters, "a") == NONE


async def test_counts_reach_the_others_and_outlive_their_instance(tallies: Away) -> None:
    async with instance(tallies) as first:
        await count(first, "a", "b")
    async with instance(tallies) as second:
        await count(second, "c")
        assert await wait(second) > NONE
        assert await wait(second, at=NOW + timedelta(minutes=2)) == NONE


async def test_to_exchange_twice_is_to_exchange_once(tallies: Away) -> None:
    async with instance(tallies) as meters:
        await count(meters, "a", "b")
        [series] = await asked(meters)
        for _ in range(3):
            series.unsaved.update(series.own)
            await meters._exchange()
        assert sum(sum(counts.values()) for counts in (await tallies.read(series.id)).values()) == 2
    async with instance(tallies) as other:
        assert await wait(other) == NONE


async def test_every_rule_of_a_limit_is_counted(tallies: Away) -> None:
    limit = Limit.parse("2/1m, 3/1h")
    async with instance(tallies) as meters:
        for number in range(3):
            at = NOW + timedelta(minutes=2 * number)
            series = await asked(meters, limit)
            assert meters.wait(series, f"{number}", at=at) == NONE
            meters.count(series, f"{number}", at=at)
        late = NOW + timedelta(minutes=10)
        assert meters.wait(await asked(meters, limit), "late", at=late) > timedelta(minutes=40)


async def test_while_mongodb_is_away_the_limit_holds_on_what_is_known_here(tallies: Away) -> None:
    async with instance(tallies) as other:
        await count(other, "a")
    async with instance(tallies) as meters:
        await count(meters, "b")
        tallies.away = True
        await count(meters, "c")
        # The other's one, and two here.
        assert await wait(meters) > NONE
        for series in await asked(meters):
            series.synced = 0.0
        assert await wait(meters) > NONE
        tallies.away = False
    async with instance(tallies) as later:
        assert await wait(later) > NONE


async def test_whoever_was_never_heard_of_is_let_through_while_mongodb_is_away(tallies: Away) -> None:
    tallies.away = True
    async with instance(tallies) as meters:
        assert await wait(meters) == NONE
        await count(meters, "a", "b", "c")
        assert await wait(meters) > NONE
        tallies.away = False


async def test_a_mongodb_that_does_not_answer_is_waited_for_once_and_not_long(
    tallies: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters_module, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(meters_module, "FRESH_SECONDS", 60.0)
    tallies.hangs = True
    meters = SharedCounters(tallies)
    began = time.monotonic()
    await asyncio.gather(*(wait(meters) for _ in range(3)))
    await wait(meters)
    assert time.monotonic() - began < 2.0
    assert tallies.asked == 3


async def test_a_fault_of_ours_is_no_outage(tallies: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_series: str) -> dict[int, dict[str, int]]:
        raise TypeError("a fault")

    monkeypatch.setattr(tallies, "read", broken)
    with pytest.raises(TypeError):
        await wait(SharedCounters(tallies))


async def test_what_nobody_asks_about_is_forgotten_and_read_again(
    tallies: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meters_module, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(meters_module, "EXCHANGE_SECONDS", 0.02)
    async with instance(tallies) as meters:
        await count(meters, "a", "b", "c")
        await eventually(lambda: not meters._series, within=10)
        assert await wait(meters) > NONE


async def test_past_parts_of_time_take_no_room(tallies: Away) -> None:
    meters = SharedCounters(tallies)
    for minute in range(20):
        await count(meters, f"{minute}", at=NOW + timedelta(minutes=minute))
    [series] = meters.series("subject", LIMIT)
    assert len(series.own) <= 2
    assert series.unsaved <= set(series.own)


async def test_messages_are_known_for_a_while_and_longer_if_they_come_again(
    tallies: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    meters = SharedCounters(tallies)
    await count(meters, "a", "b")
    monkeypatch.setattr(meters_module, "REMEMBERED_SECONDS", 0.0)
    for _ in range(5):
        meters._forget()
        await count(meters, "a")
    assert {message for message, _ in meters._counted | meters._counted_before} == {"a"}
    [series] = meters.series("subject", LIMIT)
    assert sum(series.own.values()) == 2
