"""Records that expired unread: they are reported, and the messages are sent again from the senders' inbox rows."""

from __future__ import annotations

import asyncio
import zlib

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from shared.bus.inbox import Inbox
from shared.bus.offset_gaps import OffsetGap, find_gaps
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import Append

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
