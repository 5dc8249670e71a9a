"""Count of sealed messages: reported in blocks, before they are sealed."""

from __future__ import annotations

import pytest

from shared.bus.producer import BusDown
from shared.bus.sealed_message_counts import BLOCK, SealedMessageCounts
from shared.messages import Message
from shared.messages.auth.sealing_keys import CountSealedMessages
from shared.sealing import Sealer


class Reports:
    """Receiver of the reports."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.down = False

    async def publish(self, message: Message) -> None:
        if self.down:
            raise BusDown("away")
        self.messages.append(message)

    @property
    def total(self) -> int:
        return sum(message.count for message in self.messages if isinstance(message, CountSealedMessages))


@pytest.fixture
def sealer() -> Sealer:
    return Sealer({"k2": bytes(32), "k1": bytes(range(32))})


async def test_process_that_seals_nothing_reports_nothing(sealer: Sealer) -> None:
    reports = Reports()
    await SealedMessageCounts(sealer, reports.publish).report()
    assert reports.messages == []


@pytest.mark.parametrize(
    ("sealed", "reported"), [(1, BLOCK), (BLOCK // 2, BLOCK), (BLOCK // 2 + 1, 2 * BLOCK), (5 * BLOCK, 6 * BLOCK)]
)
async def test_half_a_block_is_always_reported_in_advance(sealer: Sealer, sealed: int, reported: int) -> None:
    reports = Reports()
    counts = SealedMessageCounts(sealer, reports.publish)
    sealer.seal("auth", b"x")
    await counts.report()
    sealer.sealed_messages = sealed
    await counts.report()
    await counts.report()
    assert reports.total == reported >= sealed
    assert {message.key for message in reports.messages} == {"k2"}


async def test_report_that_kafka_did_not_take_is_repeated(sealer: Sealer) -> None:
    reports = Reports()
    reports.down = True
    counts = SealedMessageCounts(sealer, reports.publish)
    sealer.seal("auth", b"x")
    with pytest.raises(BusDown):
        await counts.report()
    reports.down = False
    await counts.report()
    assert reports.total == BLOCK


def test_every_sealed_message_is_counted(sealer: Sealer) -> None:
    sealer.seal("auth", b"x")
    sealer.sealer_for("billing")("x")
    sealer.unseal("auth", sealer.seal("auth", b"x"))
    assert sealer.sealed_messages == 3
