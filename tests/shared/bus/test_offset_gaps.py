"""Records that expired unread: they are reported, and the messages are sent again from the senders' inbox rows."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from shared.bus.committed_topics import ROW
from shared.bus.inbox import Inbox
from shared.bus.offset_gaps import OffsetGap, find_gaps, find_lost
from shared.database_version import COLLECTION
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import Append, Appended

PARTITION = TopicPartition("t", 0)


@pytest.mark.parametrize(
    ("committed", "beginning", "gaps"),
    [
        (OffsetAndMetadata(5, "1700000000000"), 5, []),
        (OffsetAndMetadata(5, "1700000000000"), 0, []),
        (OffsetAndMetadata(5, "1700000000000"), 9, [OffsetGap(PARTITION, 5, 9, 1_700_000_000_000)]),
        (OffsetAndMetadata(5, ""), 9, [OffsetGap(PARTITION, 5, 9, 0)]),
        (OffsetAndMetadata(-1, ""), 0, []),
        (OffsetAndMetadata(-1, ""), 9, [OffsetGap(PARTITION, 0, 9, 0)]),
        (None, 9, [OffsetGap(PARTITION, 0, 9, 0)]),
        (None, 0, []),
    ],
)
def test_gap_is_between_the_committed_and_the_first_offset(
    committed: OffsetAndMetadata | None, beginning: int, gaps: list[OffsetGap]
) -> None:
    found = {} if committed is None else {PARTITION: committed}
    assert find_gaps([PARTITION], found, {PARTITION: beginning}) == gaps


@pytest.mark.parametrize(
    ("committed", "end", "had_offsets", "lost"),
    [
        ({}, 0, {"t"}, True),
        ({}, 9, {"t"}, True),
        ({}, 9, {"u"}, False),
        ({PARTITION: OffsetAndMetadata(-1, "")}, 9, {"t"}, True),
        # Another partition of the topic has an offset, so this one has never had a record.
        ({TopicPartition("t", 1): OffsetAndMetadata(7, "")}, 0, {"t"}, False),
        ({TopicPartition("u", 0): OffsetAndMetadata(7, "")}, 0, {"t"}, True),
        ({PARTITION: OffsetAndMetadata(5, "")}, 9, {"t"}, False),
        ({PARTITION: OffsetAndMetadata(9, "")}, 9, {"t"}, False),
        ({PARTITION: OffsetAndMetadata(10, "")}, 9, set(), True),
    ],
)
def test_topic_without_its_offsets_or_with_an_offset_beyond_its_end_is_lost(
    committed: dict[TopicPartition, OffsetAndMetadata], end: int, had_offsets: set[str], *, lost: bool
) -> None:
    found = find_lost([PARTITION], committed, {PARTITION: 0}, {PARTITION: end}, had_offsets)
    assert found == ([OffsetGap(PARTITION, 0, 0, 0, lost=True)] if lost else [])


@pytest.mark.parametrize(
    ("committed", "beginning", "end", "next_offset"),
    [
        (5, 0, 9, 5),
        (9, 0, 9, 9),
        (2, 4, 9, 4),  # records before the copy's first one
        (10, 4, 9, 4),
        (None, 4, 9, 4),
    ],
)
def test_copied_topic_is_lost_and_is_read_from_its_copied_offset(
    committed: int | None, beginning: int, end: int, next_offset: int
) -> None:
    offsets = {} if committed is None else {PARTITION: OffsetAndMetadata(committed, "")}
    found = find_lost([PARTITION], offsets, {PARTITION: beginning}, {PARTITION: end}, {"t"}, elsewhere={"t"})
    assert found == [OffsetGap(PARTITION, next_offset, next_offset, 0, lost=True)]


async def test_messages_of_lost_topics_take_effect_once(bus: BusHarness) -> None:
    groups = {"ledger.events": ("audit",), "ledger.commands": ("ledger",)}
    async with bus.running(consumers=groups):
        async with bus.running("audit"):
            for number in range(20):
                await bus.call(Append(subject=str(number), number=0, key=str(number)))
            await bus.drained("audit")
        for number in range(1, 6):
            for subject in range(20):
                await bus.call(Append(subject=str(subject), number=number, key=str(subject)))
        # A timer whose message was sent, and which no consumer has read.
        late = Appended(subject="0", number=99, key="0")
        envelope = await bus.timer(late)

        async def sent() -> bool:
            return (
                await bus.database()[Inbox.TIMERS].find_one({"_id": envelope.id, "sentAt": {"$ne": None}}) is not None
            )

        await wait_until(sent)
    await bus.lose_topics()
    assert await bus.committed("audit") == {}
    with capture_logs() as logs:
        async with bus.running(consumers=groups), bus.running("audit"):
            expected = {str(subject): [*range(6), *([99] if subject == 0 else [])] for subject in range(20)}

            async def healed() -> bool:
                return all([sorted(await bus.numbers(each, "audit")) == numbers for each, numbers in expected.items()])

            await wait_until(healed, 30, "the lost messages were not sent again")
    assert {entry["topic"].removeprefix(bus.prefix) for entry in logs if entry["event"] == "records lost"} >= {
        "ledger.commands",
        "ledger.events",
    }
    # A second start finds offsets, and nothing that was lost.
    with capture_logs() as logs:
        async with bus.running(consumers=groups), bus.running("audit"):
            await bus.call(Append(subject="0", number=6, key="0"))
    assert "records lost" not in {entry["event"] for entry in logs}


async def test_cluster_with_another_id_lacks_records_until_they_were_sent_again(bus: BusHarness) -> None:
    groups = {"ledger.events": ("audit",), "ledger.commands": ("ledger",)}
    async with bus.running(consumers=groups), bus.running("audit"):
        await bus.call(Append(subject="0", number=0, key="0"))
        await bus.drained("audit")
    rows = bus.database("audit")[COLLECTION]
    (known,) = ((await rows.find_one({"_id": ROW})) or {})["clusters"].values()
    await rows.update_one({"_id": ROW}, {"$set": {"clusters": {"another": known}}})
    lost = []
    for _ in range(2):
        with capture_logs() as logs:
            async with bus.running(consumers=groups), bus.running("audit"):
                await bus.call(Append(subject="0", number=len(lost) + 1, key="0"))
                await bus.drained("audit")
        lost.append({entry["topic"].removeprefix(bus.prefix) for entry in logs if entry["event"] == "records lost"})
    assert lost == [{"ledger.events"}, set()]
    assert await bus.numbers("0", "audit") == [0, 1, 2]


async def test_sent_timer_is_deleted_once_its_message_is_passed(bus: BusHarness) -> None:
    async with bus.running(consumers={"ledger.events": ("audit",)}) as ledger:
        envelope = await bus.timer(Appended(subject="0", number=99, key="0"))
        rows, sent = bus.database()[Inbox.TIMERS], ledger.service.sent
        assert sent is not None

        async def is_sent() -> bool:
            return await rows.find_one({"_id": envelope.id, "sentAt": {"$ne": None}, "at": None}) is not None

        await wait_until(is_sent)
        await sent.drop_passed()
        assert await rows.count_documents({}) == 1
        async with bus.running("audit"):

            async def is_deleted() -> bool:
                await sent.drop_passed()
                return await rows.count_documents({}) == 0

            await wait_until(is_deleted)


async def test_new_topics_of_a_new_database_are_not_lost(bus: BusHarness) -> None:
    with capture_logs() as logs:
        async with bus.running():
            await bus.call(Append(subject="0", number=0, key="0"))
        async with bus.running():
            await bus.call(Append(subject="0", number=1, key="0"))
    assert "records lost" not in {entry["event"] for entry in logs}


def expired(bus: BusHarness) -> float:
    return REGISTRY.get_sample_value("nest_records_expired_total", {"service": "audit", "topic": "ledger.events"}) or 0


@pytest.mark.parametrize("keep", [0, 2])
async def test_records_that_expire_while_the_service_is_away_are_reported_and_sent_again(
    bus: BusHarness, keep: int
) -> None:
    before = expired(bus)
    async with bus.running():
        async with bus.running("audit"):
            for number in range(8):
                await bus.call(Append(subject=str(number), number=0, key=str(number)))
            await bus.drained("audit")
        for number in range(1, 11):
            for subject in range(8):
                await bus.call(Append(subject=str(subject), number=number, key=str(subject)))
        count = await bus.expire_records("ledger.events", keep=keep) - 8
        assert count >= 80 - 4 * keep
        with capture_logs() as logs:
            async with bus.running("audit"):

                async def healed() -> bool:
                    stored = [await bus.numbers(str(subject), "audit") for subject in range(8)]
                    return all(sorted(numbers) == list(range(11)) for numbers in stored)

                await wait_until(healed, 30, "the expired messages were not sent again")
                await bus.drained("audit")
                assert expired(bus) - before == count
        reports = [entry for entry in logs if entry["event"] == "records expired unread"]
        assert {entry["log_level"] for entry in reports} == {"critical"}
        assert sum(entry["count"] for entry in reports) == count

        # The next start finds no gap.
        with capture_logs() as logs:
            async with bus.running("audit"):
                await bus.call(Append(subject="0", number=11, key="0"))
                await bus.drained("audit")
        assert not [entry for entry in logs if entry["event"] == "records expired unread"]


async def test_records_that_expire_under_a_slow_consumer_are_reported_and_sent_again(bus: BusHarness) -> None:
    before = expired(bus)
    partition = zlib.crc32(b"0") % 4
    async with bus.running(), bus.running("audit", in_flight=1) as audit:
        await bus.call(Append(subject="0", number=0, key="0"))
        await bus.drained("audit")
        # Paused, the consumer is as slow as can be.
        consumer = audit.consumer._consumer
        assert consumer is not None
        assigned = [TopicPartition(f"{bus.prefix}ledger.events", partition)]
        consumer.pause(*assigned)
        await bus.call(Append(subject="0", number=1, key="0"))
        await asyncio.sleep(0.3)  # a record fetched before the pause may still arrive
        for number in range(2, 9):
            await bus.call(Append(subject="0", number=number, key="0"))
        await bus.expire_records("ledger.events", keep=1)
        consumer.resume(*assigned)

        async def healed() -> bool:
            return sorted(await bus.numbers("0", "audit")) == list(range(9))

        await wait_until(healed, 30, "the expired messages were not sent again")
        assert expired(bus) > before


async def test_group_whose_offsets_kafka_has_deleted_reports_the_gap(bus: BusHarness) -> None:
    """Kafka deletes the offsets of a group that was away for ``offsets.retention.minutes``."""
    async with bus.running():
        for number in range(4):
            await bus.call(Append(subject=str(number), number=0, key=str(number)))
        await bus.expire_records("ledger.events")
        async with bus.running("audit"):

            async def healed() -> bool:
                return all([await bus.numbers(str(number), "audit") == [0] for number in range(4)])

            await wait_until(healed, 30, "the expired messages were not sent again")


@pytest.mark.parametrize("same_time", [1, 8])
async def test_a_command_to_republish_examines_a_limited_number_of_rows(
    bus: BusHarness, monkeypatch: pytest.MonkeyPatch, same_time: int
) -> None:
    """The inbox of a busy service has millions of rows, and one command must end within the timeout of a read."""
    monkeypatch.setattr("shared.bus.republisher.MAX_ROWS", 5)
    async with bus.running():
        for number in range(20):
            await bus.call(Append(subject=str(number), number=0, key=str(number)))
        await bus.drained()
        oldest = sorted(await bus.rows(), key=lambda row: row["at"])[:same_time]
        change = {"$set": {"at": oldest[0]["at"]}}
        await bus.database()[Inbox.COLLECTION].update_many({"_id": {"$in": [row["_id"] for row in oldest]}}, change)
        await bus.expire_records("ledger.events")
        await bus.database().command("profile", 2)
        async with bus.running("audit"):

            async def healed() -> bool:
                return all([await bus.numbers(str(number), "audit") == [0] for number in range(20)])

            await wait_until(healed, 30, "the expired messages were not sent again")
            await bus.drained()
        await bus.database().command("profile", 0)
    profile = await bus.database()["system.profile"].find({"command.find": Inbox.COLLECTION}).to_list()
    reads = [entry for entry in profile if "messages.topic" in str(entry["command"]["filter"])]
    assert len(reads) >= 3
    assert max(read["docsExamined"] for read in reads) <= max(5, same_time)
