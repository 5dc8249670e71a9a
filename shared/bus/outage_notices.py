"""Outage notices: ``unavailable`` replies to callers whose messages wait for MongoDB.

A command that waits keeps its place in flight, and the consumer does not fetch the records behind it. A second Kafka
client reads those ahead and notifies their callers. It keeps a record only until its caller is notified, because an
outage may be long. The messages stay on Kafka and are handled after the outage.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from shared.bus.background_task import BackgroundTask
from shared.bus.consumer import Consumer
from shared.bus.delivery import NOTICE_MILLISECONDS, Delivery, Waiting
from shared.bus.envelope import Envelope, Record, Undecodable, unix_milliseconds
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.outage import Outage
from shared.telemetry import log

POLL_MILLISECONDS: Final = 100
"""Interval at which the waiting callers are checked."""
GRACE_SECONDS: Final = 0.1
"""Minimum age of a message for a notice. A query that needs no MongoDB has its reply by then."""
MAX_RECORDS: Final = 500
"""Records read at once."""
KAFKA_SECONDS: Final = 10.0
"""Timeout of connecting to Kafka, and of reading the position of the consumer."""
FAILURE_PAUSE: Final = 1.0
"""Seconds before the next try, if Kafka can't be read."""
NOTICES: Final = Counter("nest_outage_notices", "Callers that got a notice of an outage of MongoDB.", ["service"])


class OutageNotices(BackgroundTask):
    """Notifies the callers of all unfinished messages on a consumer's partitions during an outage.

    A caller gets the notice once the outage has lasted ``PATIENCE_SECONDS``, or shortly before its deadline.
    """

    def __init__(
        self,
        consumer: Consumer,
        delivery: Delivery,
        outage: Outage,
        *,
        kafka: KafkaConnection,
        prefix: str,
        service: str,
    ) -> None:
        self._consumer = consumer
        self._delivery = delivery
        self._outage = outage
        self._kafka = kafka
        self._prefix = prefix
        self._notices = NOTICES.labels(service)
        self._positions: dict[TopicPartition, int] = {}
        """Offsets up to which the partitions have been read ahead."""
        self._ahead: dict[str, tuple[Waiting, Record]] = {}
        """Callers of records that were read ahead, by reply ID."""

    async def _run(self) -> None:
        while True:
            await self._outage.begun.wait()
            try:
                await self._notify_until_over()
            except Exception as failure:  # noqa: BLE001 -- without this task callers would only see timeouts
                expected = isinstance(failure, KafkaError | TimeoutError)
                log.warning("outage notices interrupted", error=type(failure).__name__, exc_info=not expected)
                await asyncio.sleep(FAILURE_PAUSE)

    async def _notify_until_over(self) -> None:
        client = AIOKafkaConsumer(
            **self._kafka.options,
            client_id="nest-outage-notices",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
        )
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                await client.start()
            while self._outage.begun.is_set():
                await self._read_ahead(client)
                self._notify_waiting()
        finally:
            self._positions.clear()
            self._ahead.clear()
            await client.stop()

    async def _read_ahead(self, client: AIOKafkaConsumer) -> None:
        """Read the next records of the consumer's partitions, after a rebalance from the first unfinished ones."""
        assigned = self._consumer.assigned
        if assigned != self._positions.keys():
            self._ahead.clear()
            async with asyncio.timeout(KAFKA_SECONDS):
                self._positions = {each: await self._consumer.first_unfinished(each) for each in assigned}
            client.assign(list(assigned))
            for partition, offset in self._positions.items():
                client.seek(partition, offset)
        if not assigned:
            await asyncio.sleep(POLL_MILLISECONDS / 1000)
            return
        found = await client.getmany(timeout_ms=POLL_MILLISECONDS, max_records=MAX_RECORDS)
        for partition, records in found.items():
            self._positions[partition] = records[-1].offset + 1
            for record in records:
                self._add(record, partition.topic.removeprefix(self._prefix))

    def _add(self, record: Record, topic: str) -> None:
        # Most records of a long backlog have no caller who still waits; they are not parsed.
        deadline = next((value for name, value in record.headers if name == "deadline"), b"")
        if not deadline.isdigit() or int(deadline) < unix_milliseconds() or self._consumer.has_finished(record):
            return
        if self._delivery.problem(record, topic) is not None:
            # The consumer counts it and writes the dead letter.
            return
        try:
            envelope = Envelope.of(record, topic)
        except Undecodable:
            return
        if envelope.reply_to is not None and envelope.reply_id not in self._delivery.waiting:
            self._ahead[envelope.reply_id] = Waiting(envelope, time.monotonic()), record

    def _notify_waiting(self) -> None:
        """Send the notices that are due."""
        for waiting in list(self._delivery.waiting.values()):
            if self._is_due(waiting):
                self._notify(waiting)
        for reply_id, (waiting, record) in list(self._ahead.items()):
            if reply_id in self._delivery.waiting or self._consumer.has_finished(record):
                del self._ahead[reply_id]
            elif self._is_due(waiting):
                del self._ahead[reply_id]
                self._notify(waiting)

    def _is_due(self, waiting: Waiting) -> bool:
        if waiting.notified:
            return False
        remaining = waiting.envelope.deadline - unix_milliseconds()
        patient = not self._outage.lasts or time.monotonic() - waiting.since < GRACE_SECONDS
        return not patient or remaining <= NOTICE_MILLISECONDS + POLL_MILLISECONDS

    def _notify(self, waiting: Waiting) -> None:
        self._delivery.notify_unavailable(waiting)
        self._notices.inc()
