"""Slots, priorities and order of the keyed executor, without Kafka."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from shared.bus import keyed_executor
from shared.bus.keyed_executor import BACKLOG, KeyedExecutor, Kind, Postponed, TrackedRecord, kind_of
from shared.bus.offset_tracker import OffsetTracker

PARTITION = TopicPartition("t", 0)


class Runs:
    """An executor whose records run until they are released.

    Attributes:
        started: names of the started records, in order.
        postponing: names of records that are postponed.
    """

    def __init__(self, limit: int) -> None:
        self.executor = KeyedExecutor(self._run, limit)
        self.started: list[str] = []
        self.postponing: set[str] = set()
        self._gates: dict[str, asyncio.Event] = {}

    async def submit(self, name: str, kind: Kind, *, key: str = "", size: int = 0) -> None:
        record = SimpleNamespace(topic="t", partition=0, key=key.encode(), value=bytes(size), name=name)
        await self.executor.submit(TrackedRecord(record, TopicPartition("t", 0), OffsetTracker(), kind))
        await turns()

    async def finish(self, name: str) -> None:
        self._gates[name].set()
        await turns()

    async def finish_all(self) -> None:
        while self.executor.count:
            for gate in self._gates.values():
                gate.set()
            await turns()

    async def _run(self, tracked: TrackedRecord) -> None:
        name: str = tracked.record.name
        self.started.append(name)
        if name in self.postponing:
            raise Postponed(60)
        gate = self._gates[name] = asyncio.Event()
        await gate.wait()


async def turns() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@pytest.fixture
def runs() -> Runs:
    return Runs(2)


async def test_queries_run_while_commands_hold_all_their_slots(runs: Runs) -> None:
    for number in range(10):
        await runs.submit(f"command {number}", Kind.BACKGROUND)
    await runs.submit("query", Kind.QUERY)
    assert runs.started == ["command 0", "command 1", "query"]
    await runs.finish_all()


async def test_commands_run_while_queries_hold_all_their_slots(runs: Runs) -> None:
    for number in range(10):
        await runs.submit(f"query {number}", Kind.QUERY)
    await runs.submit("command", Kind.BACKGROUND)
    assert runs.started == ["query 0", "query 1", "command"]
    await runs.finish_all()


async def test_query_does_not_wait_for_the_commands_of_its_key(runs: Runs) -> None:
    await runs.submit("command", Kind.CALL, key="user_1")
    await runs.submit("query", Kind.QUERY, key="user_1")
    assert runs.started == ["command", "query"]
    await runs.finish_all()


async def test_commands_of_callers_start_before_waiting_background_work(runs: Runs) -> None:
    for number in range(6):
        await runs.submit(f"event {number}", Kind.BACKGROUND)
    await runs.submit("call", Kind.CALL)
    await runs.finish("event 0")
    assert runs.started == ["event 0", "event 1", "call"]
    await runs.finish_all()


async def test_background_work_gets_every_fourth_slot_under_a_flood_of_calls(runs: Runs) -> None:
    for number in range(2):
        await runs.submit(f"first {number}", Kind.CALL)
    for number in range(8):
        await runs.submit(f"call {number}", Kind.CALL)
        await runs.submit(f"event {number}", Kind.BACKGROUND)
    for name in ("first 0", "first 1", "call 0", "call 1", "call 2", "event 0"):
        await runs.finish(name)
    assert runs.started[2:] == ["call 0", "call 1", "call 2", "event 0", "call 3", "call 4"]
    await runs.finish_all()


async def test_records_of_a_key_keep_their_order_whatever_their_priority(runs: Runs) -> None:
    for number in range(2):
        await runs.submit(f"plug {number}", Kind.BACKGROUND)
    for number, kind in enumerate((Kind.BACKGROUND, Kind.CALL, Kind.BACKGROUND, Kind.CALL)):
        await runs.submit(f"record {number}", kind, key="k")
    await runs.finish_all()
    assert runs.started[2:] == [f"record {number}" for number in range(4)]


@pytest.mark.parametrize(
    ("size", "accepted"),
    [(0, 2 + 2 * BACKLOG), (8, 2 + 4)],
    ids=["by count", "by bytes"],
)
async def test_full_backlog_stops_the_reading(
    size: int, accepted: int, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyed_executor, "BACKLOG_BYTES", 32)
    for number in range(accepted):
        await runs.submit(str(number), Kind.BACKGROUND, size=size)
    further = asyncio.create_task(runs.submit("further", Kind.BACKGROUND, size=size))
    await turns()
    assert (further.done(), len(runs.started), runs.executor.count) == (False, 2, accepted)
    await runs.finish("0")
    await asyncio.wait_for(further, 30)
    await runs.finish_all()
    await runs.executor.wait_idle()
    assert len(runs.started) == accepted + 1


@pytest.mark.parametrize("kind", Kind)
async def test_postponed_records_hold_back_their_keys_and_no_slots_nor_the_backlog(runs: Runs, kind: Kind) -> None:
    runs.postponing = {f"unknown {number}" for number in range(10)}
    behind = 0 if kind is Kind.QUERY else BACKLOG
    for number in range(10):
        await runs.submit(f"unknown {number}", kind, key=f"k{number}", size=1)
        for _ in range(behind):
            await runs.submit(f"behind {number}", Kind.BACKGROUND, key=f"k{number}", size=1)
    for number in range(4):
        await runs.submit(f"other {number}", Kind.BACKGROUND, key=f"o{number}")
    assert runs.started == [*(f"unknown {number}" for number in range(10)), "other 0", "other 1"]
    assert runs.executor.postponed[PARTITION] == runs.executor.postponed_bytes[PARTITION] == 10 + 10 * behind
    assert runs.executor.count == 10 + 10 * behind + 4
    runs.postponing.clear()
    runs.executor.retry_postponed()
    await runs.finish_all()
    assert runs.executor.postponed.total() == runs.executor.postponed_bytes.total() == 0
    for number in range(10):
        assert runs.started.count(f"unknown {number}") == 2
        assert runs.started.count(f"behind {number}") == behind


async def test_postponed_key_keeps_its_order(runs: Runs) -> None:
    runs.postponing = {"first"}
    for name in ("first", "second", "third"):
        await runs.submit(name, Kind.BACKGROUND, key="k")
    runs.executor.retry_postponed()
    await turns()
    assert runs.started == ["first", "first"]
    runs.postponing.clear()
    runs.executor.retry_postponed()
    await runs.finish_all()
    assert runs.started[2:] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("type", b"billing.get-subscription-heartbeat"), ("reply-to", b"3")], Kind.QUERY),
        ([("reply-to", b"3"), ("type", b"billing.get-subscription-heartbeat")], Kind.QUERY),
        ([("type", b"billing.start-trial"), ("reply-to", b"3")], Kind.CALL),
        ([("type", b"billing.follow-subscription")], Kind.BACKGROUND),
        ([("type", b"\xff")], Kind.BACKGROUND),
        ([], Kind.BACKGROUND),
    ],
)
def test_priority_is_read_from_the_headers(headers: list[tuple[str, bytes]], expected: Kind) -> None:
    record: Any = SimpleNamespace(headers=headers)
    assert kind_of(record) is expected
