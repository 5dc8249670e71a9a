"""Sending of delayed messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.inbox import Inbox
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import BusDown, Producer
from shared.bus.timers import LEASE, POLL_SECONDS, Timers, TimerWakeups
from shared.messages import Caller
from tests.metrics import value
from tests.query_profile import QueryProfile
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.inbox_harness import ROW_ENCRYPTION
from tests.shared.sample_services import Append, Appended


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


async def add_timer(bus: BusHarness, at: datetime, number: int) -> Envelope:
    """Insert a timer row, as a commit does."""
    message = Appended(key="s", subject="s", number=number)
    envelope = Envelope(
        id=f"{number:032x}",
        wire=message.wire,
        topic=message.topic,
        key=message.key,
        body=encode(message, bus.sealer),
        time=unix_milliseconds() - 1_000_000,
        caller=Caller(kind="user", user_id="u"),
        trace="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )
    await bus.database()[Inbox.TIMERS].insert_one({"_id": envelope.id, "at": at, **envelope.row()})
    return envelope


def timers(bus: BusHarness, clock: Clock, producer: Producer | None = None) -> Timers:
    return Timers(bus.database(), producer or bus.producer, service="ledger", encryption=ROW_ENCRYPTION, clock=clock)


async def sent_ids(bus: BusHarness) -> list[str]:
    return [dict(record.headers)["id"].decode() for record in await bus.records("ledger.events")]


async def test_a_message_is_sent_when_it_is_due_and_not_before(bus: BusHarness) -> None:
    clock = Clock()
    soon = await add_timer(bus, clock.now + timedelta(minutes=1), 1)
    await add_timer(bus, clock.now + timedelta(hours=1), 2)
    assert await timers(bus, clock).publish_due() == 0
    clock.now += timedelta(seconds=59)
    assert await timers(bus, clock).publish_due() == 0
    clock.now += timedelta(seconds=1)
    assert await timers(bus, clock).publish_due() == 1
    assert await sent_ids(bus) == [soon.id]
    assert await bus.database()[Inbox.TIMERS].count_documents({}) == 1


async def test_a_delayed_message_is_sent_with_the_current_time(bus: BusHarness) -> None:
    clock = Clock()
    timer = await add_timer(bus, clock.now, 1)
    before = unix_milliseconds()
    await timers(bus, clock).publish_due()
    (record,) = await bus.records("ledger.events")
    sent = Envelope.of(record, "ledger.events")
    # Receivers reject messages older than their inbox, and this one was delayed on purpose.
    assert before <= sent.time <= unix_milliseconds()
    sent.time, sent.reply_id = timer.time, timer.reply_id
    assert sent == timer


async def test_due_messages_are_sent_in_the_order_of_their_times(bus: BusHarness) -> None:
    clock = Clock()
    for number in (3, 1, 2):
        await add_timer(bus, clock.now - timedelta(seconds=10 - number), number)
    assert await timers(bus, clock).publish_due() == 3
    assert await sent_ids(bus) == [f"{number:032x}" for number in (1, 2, 3)]


async def test_several_instances_send_each_message_once(bus: BusHarness) -> None:
    clock = Clock()
    for number in range(60):
        await add_timer(bus, clock.now, number)
    counts = await asyncio.gather(*(timers(bus, clock).publish_due() for _ in range(4)))
    assert sum(counts) == 60
    assert sorted(await sent_ids(bus)) == [f"{number:032x}" for number in range(60)]


async def test_a_message_that_was_not_sent_is_sent_after_the_lease(bus: BusHarness) -> None:
    clock = Clock()
    stopped = Producer(KafkaConnection(bus.bootstrap), macs=bus.macs, prefix=bus.prefix)
    timer = await add_timer(bus, clock.now, 1)
    with pytest.raises(BusDown):
        await timers(bus, clock, stopped).publish_due()
    assert await timers(bus, clock).publish_due() == 0
    clock.now += LEASE
    assert await timers(bus, clock).publish_due() == 1
    assert await sent_ids(bus) == [timer.id]


async def test_due_messages_are_counted_with_the_oldest_while_they_cannot_be_sent(bus: BusHarness) -> None:
    clock = Clock()
    stopped = Producer(KafkaConnection(bus.bootstrap), macs=bus.macs, prefix=bus.prefix)
    since = clock.now - timedelta(seconds=50)
    await add_timer(bus, since, 1)
    await add_timer(bus, clock.now, 2)
    await add_timer(bus, clock.now + timedelta(hours=1), 3)
    for _ in range(2):
        # The second time another instance has leased the oldest one.
        with pytest.raises(BusDown):
            await timers(bus, clock, stopped).publish_due()
        assert value("nest_timers_due", service="ledger") == 2
        measured = value("nest_timers_due_since_timestamp_seconds", service="ledger")
        assert measured == pytest.approx(since.timestamp(), abs=0.002)
    clock.now += LEASE
    assert await timers(bus, clock).publish_due() == 2
    assert await timers(bus, clock).publish_due() == 0
    assert value("nest_timers_due", service="ledger") == 0
    assert value("nest_timers_due_since_timestamp_seconds", service="ledger") == 0


async def test_a_delayed_event_is_handled_later_and_once(bus: BusHarness) -> None:
    async with bus.running(), bus.running(), bus.running("audit"):
        started = datetime.now(UTC)
        for number in range(10):
            await bus.call(Append(subject="s", number=number, key="s", later=1.0))
        assert await sent_ids(bus) == [] or datetime.now(UTC) - started >= timedelta(seconds=1)

        async def all_stored() -> bool:
            return len(await bus.numbers("s", "audit")) >= 10

        await wait_until(all_stored)
        await bus.drained("audit")
    assert sorted(await bus.numbers("s", "audit")) == list(range(10))
    for entry in await bus.database("audit")["inbox"].find().to_list():
        assert entry["at"] - started >= timedelta(seconds=1)


@asynccontextmanager
async def polling(instance: Timers) -> AsyncIterator[None]:
    instance.start()
    try:
        yield
    finally:
        async with asyncio.timeout(30):
            await instance.stop()


async def test_a_stop_at_any_moment_ends_the_polling(bus: BusHarness) -> None:
    for pause in (0.0, 0.001, 0.003, 0.01):
        async with polling(timers(bus, Clock())):
            await asyncio.sleep(pause)


async def test_a_bad_row_does_not_end_the_polling(bus: BusHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.bus.timers.RETRY_SECONDS", 0.02)
    clock = Clock()
    broken: dict[str, Any] = {"_id": "broken", "at": clock.now}
    await bus.database()[Inbox.TIMERS].insert_one(broken)
    good = await add_timer(bus, clock.now, 1)
    async with polling(timers(bus, clock)):

        async def sent() -> bool:
            return await sent_ids(bus) == [good.id]

        await wait_until(sent)


@pytest.mark.parametrize("committed_here", [True, False])
async def test_a_row_is_sent_when_it_is_due_long_before_the_next_poll(bus: BusHarness, *, committed_here: bool) -> None:
    due = datetime.now(UTC) + timedelta(seconds=0.4)
    wakeups = TimerWakeups()
    running = Timers(bus.database(), bus.producer, service="ledger", encryption=ROW_ENCRYPTION, wakeups=wakeups)
    if not committed_here:
        await add_timer(bus, due, 1)
    async with polling(running):
        if committed_here:
            await asyncio.sleep(0.1)
            await add_timer(bus, due, 1)
            wakeups.add(due)

        async def sent() -> bool:
            return bool(await sent_ids(bus))

        await wait_until(sent, POLL_SECONDS / 2)
    assert datetime.now(UTC) >= due


async def test_at_rest_a_poll_is_one_read_that_finds_rows_of_ended_processes(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.bus.timers.POLL_SECONDS", 0.2)
    running = Timers(bus.database(), bus.producer, service="ledger", encryption=ROW_ENCRYPTION)
    profile = QueryProfile(bus.database())
    async with polling(running):
        await asyncio.sleep(0.1)
        await profile.start()
        await asyncio.sleep(1)
        assert {each["op"] for each in await profile.operations()} == {"query"}
        row = await add_timer(bus, datetime.now(UTC) - timedelta(seconds=1), 1)

        async def sent() -> bool:
            return await sent_ids(bus) == [row.id]

        await wait_until(sent)
    assert value("nest_timers_due", service="ledger") == 0
