"""Republishing of messages that expired from a topic before their consumer read them.

A consumer that was away for longer than a topic's retention reports the gap. Every service then sends the messages to
that topic again that its inbox rows still hold. They keep their IDs, so receivers ignore those that they have handled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from shared.bus.envelope import Envelope, encode, unix_milliseconds
from shared.bus.inbox import Inbox
from shared.bus.offset_gaps import OffsetGap
from shared.bus.producer import Producer
from shared.bus.row_encryption import RowEncryption
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import SERVICE
from shared.messages.republishing import RepublishMessages
from shared.metrics import REPUBLISHED
from shared.mongo import Collection, Database, Document
from shared.sealing import CannotUnseal, Sealer
from shared.telemetry import log, new_traceparent

MAX_ROWS: Final = 1000
"""Inbox rows that one command examines."""
MARGIN_MILLISECONDS: Final = 60 * 60_000
"""An inbox row may have been written so long before its record, because Kafka was away or clocks differ."""


class Republisher:
    """Sends messages of one service again, from its inbox rows."""

    def __init__(self, database: Database, producer: Producer, *, service: str, encryption: RowEncryption) -> None:
        self._rows: Collection = database[Inbox.COLLECTION]
        self._producer = producer
        self._encryption = encryption
        self._service = service

    async def republish(self, command: RepublishMessages, work: Work, _context: object) -> None:
        """Send the messages of the first ``MAX_ROWS`` rows of the period, and order those of the rest.

        Raises:
            BusDown: Kafka did not acknowledge all of them.
        """
        end = await self._end_of_slice(command)
        query = {"at": _period(command.since, end), "messages.topic": command.recipient}
        for row in await self._rows.find(query).sort("at", 1).to_list():
            messages = [*self._messages(row, command.recipient)]
            if messages:
                # Sent here, not by the work, whose inbox row would hold them all once more. A repeat of this command
                # sends them again, which receivers ignore.
                await self._producer.send(*messages)
                REPUBLISHED.labels(self._service, command.recipient).inc(len(messages))
        if end < command.before:
            work.publish(command.model_copy(update={"key": work.key, "since": end}))
        else:
            log.warning("messages republished", recipient=command.recipient, before=command.before)

    async def _end_of_slice(self, command: RepublishMessages) -> int:
        """Return the time of the row after the first ``MAX_ROWS`` of the period, or the end of the period.

        The rows are counted whether they hold messages for the topic or not, in the index of their time. So a command
        takes equally long for every inbox.
        """
        times = self._rows.find({"at": _period(command.since, command.before)}, {"_id": 0, "at": 1}).sort("at", 1)
        following = await times.skip(MAX_ROWS).limit(1).to_list()
        # At least a millisecond, even if more rows have the same time.
        return max(_milliseconds(following[0]["at"]), command.since + 1) if following else command.before

    def _messages(self, row: Document, recipient: str) -> Iterable[Envelope]:
        for stored in row["messages"]:
            if stored["topic"] == recipient:
                try:
                    yield self._encryption.message_of(stored)
                except CannotUnseal:
                    log.error("message not republished", id=stored["id"], type=stored["type"], error="CannotUnseal")


async def order_republishing(
    gaps: Sequence[OffsetGap],
    commands: Iterable[type[RepublishMessages]],
    *,
    producer: Producer,
    sealer: Sealer,
    prefix: str,
    group: str,
) -> None:
    """Order every service to send the expired messages again; return when Kafka has acknowledged the orders.

    Args:
        gaps: what the consumer group has missed.
        commands: the command of each service that may have sent them.
        producer: sends the orders.
        sealer: of this service.
        prefix: of the topics.
        group: the consumer group.

    Raises:
        BusDown: Kafka did not acknowledge all of them. A repeat sends the same orders, which are handled once.
    """
    now = unix_milliseconds()
    for topic in sorted({gap.partition.topic for gap in gaps}):
        missed = sorted((gap.partition.partition, gap.first, gap.next) for gap in gaps if gap.partition.topic == topic)
        since = min(gap.last_read for gap in gaps if gap.partition.topic == topic)
        for command in commands:
            order: Any = command(
                key=topic,
                recipient=topic.removeprefix(prefix),
                since=max(0, since - MARGIN_MILLISECONDS),
                before=now,
            )
            await producer.send(
                Envelope(
                    id=derived_message_id("expired records", group, topic, command.wire, str(missed)),
                    wire=command.wire,
                    topic=command.topic,
                    key=order.key,
                    body=encode(order, sealer),
                    time=now,
                    caller=SERVICE,
                    trace=new_traceparent(),
                    # A repeat has another ``before``, and is the same order.
                    fingerprint=sealer.fingerprint(topic.encode(), str(missed).encode()),
                )
            )


def _period(since: int, before: int) -> Document:
    return {"$gte": _time(since), "$lt": _time(before)}


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
