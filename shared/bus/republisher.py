"""Republishing of messages that expired from a topic, or that Kafka lost, before their consumer read them.

A consumer that was away for longer than a topic's retention, or that finds a topic without its group's offsets, reports
it. Every service then sends the messages to that topic again that its inbox rows and sent timers still hold. They keep
their IDs, so receivers ignore those that they have handled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
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
from shared.telemetry import log

MAX_ROWS: Final = 1000
"""Inbox rows that one command examines."""
MARGIN_MILLISECONDS: Final = 60 * 60_000
"""An inbox row may have been written so long before its record, because Kafka was away or clocks differ."""

AGE_MARGIN_MILLISECONDS: Final = 60 * 60_000
"""Time that a message has to be handled in before it is too old."""


class Republisher:
    """Sends messages of one service again, from its inbox rows and sent timers.

    Those that are older than ``retention`` are left: their receivers would not handle them.
    """

    def __init__(
        self,
        database: Database,
        producer: Producer,
        *,
        service: str,
        encryption: RowEncryption,
        retention: timedelta = timedelta(days=8),
    ) -> None:
        self._rows: Collection = database[Inbox.COLLECTION]
        self._timers: Collection = database[Inbox.TIMERS]
        self._retention = retention
        self._producer = producer
        self._encryption = encryption
        self._service = service

    async def republish(self, command: RepublishMessages, work: Work, _context: object) -> None:
        """Send the messages of the first ``MAX_ROWS`` rows of the period, and order those of the rest.

        Raises:
            BusDown: Kafka did not acknowledge all of them.
        """
        oldest = unix_milliseconds() + AGE_MARGIN_MILLISECONDS - int(self._retention.total_seconds() * 1000)
        command = command.model_copy(update={"since": min(max(command.since, oldest), command.before)})
        end = await self._end_of_slice(command)
        query = {"at": _period(command.since, end), "messages.topic": command.recipient}
        for row in await self._rows.find(query).sort("at", 1).to_list():
            await self._send([*self._messages(row["messages"], command.recipient)], command)
        sent = {"sentAt": _period(command.since, end), "topic": command.recipient}
        for row in await self._timers.find(sent).sort("sentAt", 1).to_list():
            messages = [*self._messages([row], command.recipient)]
            for message in messages:
                message.time = _milliseconds(row["sentAt"])
            await self._send(messages, command)
        if end < command.before:
            work.publish(command.model_copy(update={"key": work.key, "since": end}))
        else:
            log.warning("messages republished", recipient=command.recipient, before=command.before)

    async def _send(self, messages: Sequence[Envelope], command: RepublishMessages) -> None:
        """Send here, not by the work, whose inbox row would hold them all once more.

        A repeat of the command sends them again, which receivers ignore.
        """
        if messages:
            await self._producer.send(*messages)
            REPUBLISHED.labels(self._service, command.recipient).inc(len(messages))

    async def _end_of_slice(self, command: RepublishMessages) -> int:
        """Return the time of the row after the first ``MAX_ROWS`` of the period, or the end of the period.

        The rows are counted whether they hold messages for the topic or not, in the index of their time. So a command
        takes equally long for every inbox.
        """
        times = self._rows.find({"at": _period(command.since, command.before)}, {"_id": 0, "at": 1}).sort("at", 1)
        following = await times.skip(MAX_ROWS).limit(1).to_list()
        # At least a millisecond, even if more rows have the same time.
        return max(_milliseconds(following[0]["at"]), command.since + 1) if following else command.before

    def _messages(self, rows: Iterable[Document], recipient: str) -> Iterable[Envelope]:
        for stored in rows:
            if stored["topic"] == recipient:
                try:
                    yield self._encryption.message_of(stored)
                except CannotUnseal:
                    log.error("message not republished", id=stored["id"], type=stored["type"], error="CannotUnseal")


async def order_republishing(
    gaps: Sequence[OffsetGap],
    commands: Iterable[type[RepublishMessages]],
    resent: Mapping[str, Iterable[type[RepublishMessages]]] = MappingProxyType({}),
    *,
    producer: Producer,
    sealer: Sealer,
    prefix: str,
    group: str,
) -> None:
    """Order every service to send expired or lost messages again; return when Kafka has acknowledged the orders.

    Args:
        gaps: what the consumer group has missed.
        commands: the command of each service that may have sent them.
        resent: commands of this service for topics without consumers, which are ordered if Kafka has lost topics.
        producer: sends the orders.
        sealer: of this service.
        prefix: of the topics.
        group: the consumer group.

    Raises:
        BusDown: Kafka did not acknowledge all of them. A repeat sends the same orders, which are handled once.
    """
    now = unix_milliseconds()
    for topic in sorted({gap.partition.topic for gap in gaps}):
        own = [gap for gap in gaps if gap.partition.topic == topic]
        if any(gap.lost for gap in own):
            orders = {topic: commands, **{prefix + name: writers for name, writers in resent.items()}}
            # A topic may be lost again. Its consumers mostly find that within the same minute.
            what = f"lost {now // 60_000}"
        else:
            orders = {topic: commands}
            what = str(sorted((gap.partition.partition, gap.first, gap.next) for gap in own))
        since = max(0, min(gap.last_read for gap in own) - MARGIN_MILLISECONDS)
        for recipient, writers in orders.items():
            for command in writers:
                order: Any = command(key=recipient, recipient=recipient.removeprefix(prefix), since=since, before=now)
                await producer.send(_order_of(order, what, group=group, sealer=sealer))


def _order_of(order: RepublishMessages, what: str, *, group: str, sealer: Sealer) -> Envelope:
    return Envelope(
        id=derived_message_id("expired records", group, order.key, order.wire, what),
        wire=order.wire,
        topic=order.topic,
        key=order.key,
        body=encode(order, sealer),
        time=order.before,
        caller=SERVICE,
        # A repeat has another ``before``, and is the same order.
        fingerprint=sealer.fingerprint(order.key.encode(), what.encode()),
    )


def _period(since: int, before: int) -> Document:
    return {"$gte": _time(since), "$lt": _time(before)}


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
