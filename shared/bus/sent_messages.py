"""Removal of messages and replies from inbox rows, and of sent timers, once nobody needs them again.

An inbox row holds the messages of its work, so that they can be sent again after a crash. Once they are acknowledged
and every service that consumes their topics has committed a later offset, they are no longer needed. Nor is the reply
to a call without an idempotency key once Kafka has acknowledged it: the gateway reads it from there, and the caller
can't repeat the call under its ID. Both are nine tenths of a row, which is kept for days to recognize repeats.

What was sent is remembered in memory only: a row whose instance stops earlier keeps its messages until it expires.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from shared.bus.background_task import BackgroundTask
from shared.bus.envelope import Envelope
from shared.bus.inbox import Inbox
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import CONSUMERS
from shared.mongo import dependency_down
from shared.telemetry import log

CHECK_SECONDS: Final = 5.0
"""Pause between two checks, each of which costs a request per consumer group and an update per ``BATCH`` rows."""
BATCH: Final = 500
MAX_WAITING: Final = 50_000
"""Bound on the remembered rows while a consumer is away, about 30 MB. The oldest rows beyond it keep their messages."""
MAX_REMEMBERED: Final = 50_000
"""Bound on the remembered IDs of rows whose messages were acknowledged, about 6 MB."""
MAX_AGE_SECONDS: Final = 3600.0
"""Time after which a row is forgotten and keeps its messages. While a consumer is away, messages may age out of their
topic; when it returns, it commits offsets beyond messages that it has never read."""
KAFKA_SECONDS: Final = 10.0
"""Timeout of the requests of one check."""
Position = tuple[TopicPartition, int]
"""Partition and offset of a record."""


class _Row(NamedTuple):
    """A row, the positions of its messages, and when they were acknowledged (monotonic seconds).

    ``reply`` is for a reply that is removed too, if Kafka has acknowledged it.
    """

    id: str
    to_pass: tuple[Position, ...]
    sent_at: float
    timer: bool = False
    reply: asyncio.Future[bool] | None = None


class SentMessages(BackgroundTask):
    """The rows of one inbox whose messages were sent by this instance and not yet passed by every consumer group.

    Args:
        inbox: the inbox.
        kafka: the connection to Kafka.
        prefix: prefix of topic names and consumer groups.
        consumers: services that consume a topic, by its name without the prefix. Messages of other topics stay.
    """

    def __init__(
        self,
        inbox: Inbox,
        kafka: KafkaConnection,
        *,
        prefix: str,
        consumers: Mapping[str, Sequence[str]] = CONSUMERS,
        check_seconds: float = CHECK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inbox = inbox
        self._kafka = kafka
        self._prefix = prefix
        self._groups = {prefix + topic: [prefix + name for name in names] for topic, names in consumers.items()}
        self._check_seconds = check_seconds
        self._clock = clock
        self._waiting: deque[_Row] = deque(maxlen=MAX_WAITING)
        self._acknowledged: dict[str, None] = {}
        self._admin: AIOKafkaAdminClient | None = None

    @property
    def count(self) -> int:
        """Number of the remembered rows."""
        return len(self._waiting)

    def add(
        self,
        row_id: str,
        messages: Sequence[Envelope],
        positions: Sequence[Position],
        *,
        reply: asyncio.Future[bool] | None = None,
    ) -> None:
        """Remember that the messages of a row were acknowledged at these positions, in the same order.

        A forwarded message stays in its row: it is sent again for every repeat of the call, with its reply address.

        Args:
            row_id: the row.
            messages: its messages, possibly none.
            positions: where they are on Kafka.
            reply: whether Kafka has acknowledged the row's reply, if no caller can ask for the reply again.
        """
        if messages:
            self._acknowledged[row_id] = None
            if len(self._acknowledged) > MAX_REMEMBERED:
                del self._acknowledged[next(iter(self._acknowledged))]
        to_pass = tuple(
            position for message, position in zip(messages, positions, strict=True) if not message.forwarded
        )
        if (to_pass or reply) and all(partition.topic in self._groups for partition, _ in to_pass):
            self._waiting.append(_Row(row_id, to_pass, self._clock(), reply=reply))

    def follows(self, message: Envelope) -> bool:
        """Return True if consumer groups read the topic of a message."""
        return bool(self._groups.get(self._prefix + message.topic))

    def add_timer(self, row_id: str, positions: Sequence[Position]) -> None:
        """Remember that the message of a timer was acknowledged at these positions; its row is deleted afterwards."""
        self._waiting.append(_Row(row_id, tuple(positions), self._clock(), timer=True))

    def acknowledged(self, row_id: str) -> bool:
        """Return True if Kafka has acknowledged the messages of a row to this instance, among its last rows.

        A repeat of the row's message needs not send them again, except forwarded ones.
        """
        return row_id in self._acknowledged

    async def stop(self) -> None:
        """Stop the checks."""
        await super().stop()
        await self._disconnect()

    async def drop_passed(self) -> None:
        """Remove the messages that every consumer group has passed from their rows.

        Raises:
            KafkaError, TimeoutError: Kafka did not answer.
            PyMongoError: MongoDB is unavailable.
        """
        oldest = self._clock() - MAX_AGE_SECONDS
        while self._waiting and self._waiting[0].sent_at < oldest:
            self._waiting.popleft()
        if not self._waiting:
            return
        taken, self._waiting = self._waiting, deque(maxlen=MAX_WAITING)
        left = list(taken)
        try:
            committed = await self._committed({partition.topic for row in taken for partition, _ in row.to_pass})
            waiting, timers, with_replies, others = [], [], [], []
            for row in taken:
                if not self._is_passed(row, committed):
                    waiting.append(row)
                elif row.timer:
                    timers.append(row.id)
                elif row.reply is not None and row.reply.result():
                    with_replies.append(row.id)
                else:
                    others.append(row.id)
            for drop, ids in (
                (self._inbox.drop_messages, others),
                (partial(self._inbox.drop_messages, replies=True), with_replies),
                (self._inbox.drop_sent_timers, timers),
            ):
                for start in range(0, len(ids), BATCH):
                    await drop(ids[start : start + BATCH])
            left = waiting
        finally:
            self._waiting = deque([*left, *self._waiting], maxlen=MAX_WAITING)

    def _is_passed(self, row: _Row, committed: Mapping[str, Mapping[TopicPartition, int]]) -> bool:
        """Return True if all consumer groups have passed a row's messages, and whether its reply was sent is known."""
        if row.reply is not None and not row.reply.done():
            return False
        for partition, offset in row.to_pass:
            for group in self._groups[partition.topic]:
                if committed[group].get(partition, 0) <= offset:
                    return False
        return True

    async def _committed(self, topics: set[str]) -> dict[str, dict[TopicPartition, int]]:
        """Return the committed offsets of the groups that consume these topics."""
        groups = sorted({group for topic in topics for group in self._groups[topic]})
        found = {}
        async with asyncio.timeout(KAFKA_SECONDS):
            for group in groups:
                offsets = await (await self._connected()).list_consumer_group_offsets(group)
                found[group] = {partition: each.offset for partition, each in offsets.items()}
        return found

    async def _connected(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            self._admin = AIOKafkaAdminClient(**self._kafka.options)
            await self._admin.start()
        return self._admin

    async def _disconnect(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            try:
                await self.drop_passed()
            except Exception as failure:  # noqa: BLE001 -- without this task rows would keep their messages unnoticed
                outage = isinstance(failure, KafkaError | TimeoutError) or dependency_down(failure)
                if outage:
                    log.info("messages not dropped", error=type(failure).__name__)
                else:
                    log.error("messages not dropped", exc_info=failure)
                await self._disconnect()
