"""Removal of messages from inbox rows once every consumer group has passed them."""

import asyncio
from collections import deque
from importlib import import_module
from typing import Any

import bson
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from shared.bus import sent_messages as module
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.sent_messages import SentMessages
from shared.bus.topics import CONSUMERS, SERVICES
from shared.ids import new_message_id
from tests.shared.bus_harness import BusHarness, RunningService
from tests.shared.inbox_harness import InboxHarness, envelope
from tests.shared.sample_services import CONSUMERS as LEDGER_CONSUMERS
from tests.shared.sample_services import Append, Relay


async def messages_of(bus: BusHarness, message_id: str) -> list[str]:
    """The types of the messages in an inbox row of the ledger."""
    (row,) = [row for row in await bus.rows() if row["_id"] == message_id]
    return [message["type"] for message in row["messages"]]


def sent_by(running: RunningService) -> SentMessages:
    assert running.service.sent is not None
    return running.service.sent


def test_the_consumers_of_the_topics_are_those_of_the_services() -> None:
    declared = {service: set(import_module(f"services.{service}.app").TOPICS) for service in SERVICES}
    assert {service: {topic for topic, names in CONSUMERS.items() if service in names} for service in SERVICES} == (
        declared
    )


async def test_messages_stay_until_every_group_has_passed_them(bus: BusHarness) -> None:
    message_id = new_message_id()
    command = Append(subject="s", number=1, key="s", events=3)
    async with bus.running(consumers=LEDGER_CONSUMERS) as running:
        first = await bus.call(command, id=message_id)
        await bus.drained("ledger")
        full = (await bus.rows())[0]
        await sent_by(running).drop_passed()
        # The audit has not read them.
        assert await messages_of(bus, message_id) == ["ledger.appended"] * 3
        assert sent_by(running).count == 1
        async with bus.running("audit"):
            await bus.drained("audit")
        await sent_by(running).drop_passed()
        assert await messages_of(bus, message_id) == []
        assert sent_by(running).count == 0
        assert len(bson.encode((await bus.rows())[0])) < len(bson.encode(full)) / 2
        repeat = await bus.call(command, id=message_id)
        assert (repeat.body, repeat.replayed) == (first.body, True)
        await bus.drained("ledger")
    assert len(await bus.records("ledger.events")) == 3
    assert await bus.numbers("s", "audit") == [1, 1, 1]


async def test_a_forwarded_message_stays_for_repeats_of_the_call(bus: BusHarness) -> None:
    message_id = new_message_id()
    async with bus.running(consumers=LEDGER_CONSUMERS) as running:
        first = await bus.call(Relay(subject="s", number=1, key="k"), id=message_id)
        await bus.drained("ledger")
        await sent_by(running).drop_passed()
        assert await messages_of(bus, message_id) == ["ledger.append"]
        second = await bus.call(Relay(subject="s", number=1, key="k"), id=message_id)
        assert (second.body, second.replayed) == (first.body, True)


async def test_a_reply_that_no_caller_can_repeat_is_removed(bus: BusHarness) -> None:
    command = Append(subject="s", number=1, key="s")
    async with bus.running(consumers=LEDGER_CONSUMERS) as running, bus.running("audit"):
        await bus.call(command, id="1" * 32, fingerprint="")
        await bus.call(command, id="2" * 32)
        # The reply to a forwarded message has the correlation ID of the call.
        await bus.send(command, id="3" * 32, reply_to=0, reply_id="9" * 32)
        await bus.drained("ledger", "audit")
        await sent_by(running).drop_passed()
        kept = {row["_id"][0]: (row["reply"], row["answers"], row["messages"]) for row in await bus.rows()}
        assert kept == {
            "1": (None, False, []),
            "2": (b'{"entries":2}', True, []),
            "3": (b'{"entries":3}', True, []),
        }
        # A second delivery is recognized, and sends nothing.
        with pytest.raises(TimeoutError):
            await bus.call(command, id="1" * 32, fingerprint="", seconds=0.5)
    assert await bus.numbers("s") == [1, 1, 1]


async def test_rewound_offsets_change_nothing_after_the_removal(bus: BusHarness) -> None:
    async with bus.running(consumers=LEDGER_CONSUMERS) as running, bus.running("audit"):
        for number in range(5):
            await bus.call(Append(subject="s", number=number, key="s"))
        await bus.drained("ledger", "audit")
        await sent_by(running).drop_passed()
    await bus.rewind("ledger")
    async with bus.running(), bus.running("audit"):
        await bus.drained("ledger", "audit")
    assert await bus.numbers("s") == await bus.numbers("s", "audit") == [0, 1, 2, 3, 4]
    assert len(await bus.records("ledger.events")) == 5


class TestWithoutKafka:
    POSITION = (TopicPartition("a.events", 0), 7)

    @pytest.fixture
    def sent(self, harness: InboxHarness) -> SentMessages:
        consumers = {"a.events": ("b", "c"), "a.keys": ()}
        return SentMessages(harness.inbox, KafkaConnection("127.0.0.1:1"), prefix="", consumers=consumers)

    def committed(self, sent: SentMessages, monkeypatch: pytest.MonkeyPatch, **offsets: int) -> None:
        async def read(_: Any) -> dict[str, dict[TopicPartition, int]]:
            return {group: {TopicPartition("a.events", 0): offset} for group, offset in offsets.items()}

        monkeypatch.setattr(sent, "_committed", read)

    @pytest.mark.parametrize(
        ("offsets", "left"),
        [({"b": 8, "c": 7}, 1), ({"b": 8, "c": -1}, 1), ({"b": 8, "c": 8}, 0), ({"b": 9, "c": 20}, 0)],
    )
    async def test_the_committed_offset_of_each_group_must_be_later(
        self, offsets: dict[str, int], left: int, sent: SentMessages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.committed(sent, monkeypatch, **offsets)
        sent.add("row", [envelope()], [self.POSITION])
        await sent.drop_passed()
        assert sent.count == left

    async def test_messages_that_no_group_consumes_are_removed_at_once(self, sent: SentMessages) -> None:
        sent.add("row", [envelope()], [(TopicPartition("a.keys", 0), 7)])
        await sent.drop_passed()
        assert sent.count == 0

    async def test_messages_of_unknown_topics_stay(self, sent: SentMessages) -> None:
        sent.add("row", [envelope(), envelope()], [self.POSITION, (TopicPartition("other", 0), 7)])
        assert sent.count == 0

    @pytest.mark.parametrize("acknowledged", [True, False])
    async def test_a_reply_stays_until_kafka_has_acknowledged_it(
        self,
        sent: SentMessages,
        acknowledged: bool,  # noqa: FBT001
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        dropped: dict[bool, list[str]] = {}

        async def drop(ids: list[str], *, replies: bool = False) -> None:
            dropped[replies] = ids

        monkeypatch.setattr(sent._inbox, "drop_messages", drop)
        reply = asyncio.get_running_loop().create_future()
        sent.add("row", [], [], reply=reply)
        await sent.drop_passed()
        assert (dropped, sent.count) == ({}, 1)
        reply.set_result(acknowledged)
        await sent.drop_passed()
        assert (dropped, sent.count) == ({acknowledged: ["row"]}, 0)

    async def test_a_row_that_waits_for_an_hour_keeps_its_messages(
        self, sent: SentMessages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 0.0
        monkeypatch.setattr(sent, "_clock", lambda: now)
        self.committed(sent, monkeypatch, b=0, c=0)
        sent.add("old", [envelope()], [self.POSITION])
        now = 3000.0
        sent.add("new", [envelope()], [self.POSITION])
        await sent.drop_passed()
        now = 3601.0
        # The messages may have aged out of the topic by the time at which a consumer returns and commits.
        await sent.drop_passed()
        assert [row.id for row in sent._waiting] == ["new"]

    async def test_an_outage_of_kafka_forgets_no_row(self, sent: SentMessages, monkeypatch: pytest.MonkeyPatch) -> None:
        async def fail(_: Any) -> Any:
            sent.add("later", [envelope()], [self.POSITION])
            raise KafkaError("away")

        monkeypatch.setattr(sent, "_committed", fail)
        sent.add("row", [envelope()], [self.POSITION])
        with pytest.raises(KafkaError):
            await sent.drop_passed()
        assert [row.id for row in sent._waiting] == ["row", "later"]

    async def test_the_memory_for_rows_is_bounded(self, sent: SentMessages, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_WAITING", 3)
        sent._waiting = deque(maxlen=3)
        self.committed(sent, monkeypatch, b=0, c=0)
        for number in range(5):
            sent.add(str(number), [envelope()], [self.POSITION])
        await sent.drop_passed()
        assert [row.id for row in sent._waiting] == ["2", "3", "4"]

    async def test_the_memory_for_acknowledged_rows_is_bounded(
        self, sent: SentMessages, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MAX_REMEMBERED", 3)
        for number in range(5):
            sent.add(str(number), [envelope()], [self.POSITION])
        assert [number for number in range(5) if sent.acknowledged(str(number))] == [2, 3, 4]
