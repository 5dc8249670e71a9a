"""How does a service take its messages? Many at once, one at a time for each key, and offsets only past finished ones.

FastStream runs the consumer and hands over records in batches, raw; the loop over them is ours, since none of its
acknowledgement policies is both loss-free and poison-safe.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import FAKE_CONSUMER, KafkaMessage
from faststream.kafka.subscriber.usecase import BatchSubscriber

from shared.bus.aiokafka_patch import patch_aiokafka
from shared.bus.delivery import Delivery, Stopping
from shared.bus.keyed_executor import KeyedExecutor, Record, Taken
from shared.bus.offset_tracker import OffsetTracker
from shared.dead_letters.records import is_replay
from shared.telemetry import IN_FLIGHT, OLDEST, log

COMMIT_SECONDS: Final = 0.1
"""How often offsets are committed. What is handled twice after a crash is absorbed by the inbox."""
REVOKE_SECONDS: Final = 15.0
"""How long a rebalance waits for messages under way; below the rebalance time-out, or the group goes on without us."""
LAST_COMMIT_SECONDS: Final = 5.0
"""How long a rebalance or a stop waits for offsets to be committed."""
STOP_SECONDS: Final = 5.0
"""How long a stop waits for the group to be left."""
DEAD_IN_A_ROW: Final = 10
"""So many dead letters in a row on one partition: the fault is ours, not the messages'."""
WAIT_FOR_EVER: Final = 10 * 365 * 24 * 3600 * 1000
"""Milliseconds. FastStream sleeps for the same time after an empty poll, and a message would wait for that to end."""


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """The consumer of one service.

    Args:
        bootstrap: ``host:port`` of brokers, separated by commas.
        prefix: leads every topic's name.
        group: the consumer group: instances of a service share its partitions.
        topics: what is consumed, without the prefix.
        delivery: brings records to their ends.
        in_flight: how many records may be under way.
        service: for metrics.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        prefix: str,
        group: str,
        topics: Sequence[str],
        delivery: Delivery,
        in_flight: int,
        service: str,
    ) -> None:
        patch_aiokafka()
        self._prefix = prefix
        self.group = group
        self.topics = tuple(prefix + topic for topic in topics)
        self._delivery = delivery
        self._lanes = KeyedExecutor(self._run, in_flight)
        self._progress: dict[TopicPartition, OffsetTracker] = {}
        self._dead_in_a_row: dict[TopicPartition, int] = {}
        self._stopping = False
        self._ended = asyncio.Event()
        self._committer: asyncio.Task[None] | None = None
        self._gauge = IN_FLIGHT.labels(service)
        OLDEST.labels(service).set_function(self._oldest_seconds)
        self.last_progress = time.monotonic()
        """When a record was last taken or finished; monotonic seconds."""
        self.fault: str | None = None
        """Why this consumer has stopped for good; None while all is well."""
        self.broker = KafkaBroker(
            bootstrap,
            client_id=group,
            allow_auto_create_topics=False,
            request_timeout_ms=10_000,
            retry_backoff_ms=200,
            metadata_max_age_ms=60_000,
            apply_types=False,
            logger=None,
        )
        self._subscriber: BatchSubscriber = self.broker.subscriber(
            *self.topics,
            group_id=group,
            batch=True,
            batch_timeout_ms=WAIT_FOR_EVER,
            max_records=in_flight,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=50,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=3_000,
            rebalance_timeout_ms=30_000,
            max_poll_interval_ms=300_000,
            listener=self,
            parser=_leave_raw,
            decoder=_leave_records,
        )
        self._subscriber(self._take)

    async def start(self) -> None:
        """Join the group and take messages.

        Raises:
            KafkaError: Kafka can't be reached.
        """
        await self.broker.start()
        self._committer = asyncio.create_task(self._commit_regularly())

    async def stop(self, within: float) -> None:
        """Take no more, bring what is under way to its end within so many seconds, commit, leave the group."""
        self._stopping = True
        consumer = self._consumer
        if consumer is not None:
            consumer.pause(*consumer.assignment())
        self._lanes.release()
        try:
            async with asyncio.timeout(within):
                await self._lanes.finished()
                await self._delivery.answered()
        except TimeoutError:
            log.warning("messages left under way", count=self._lanes.count, group=self.group)
        self._delivery.stop()
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
        await self._commit_bounded()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.broker.stop()
        except TimeoutError:
            # aiokafka waits for brokers that are gone (aio-libs/aiokafka#1101); the group notices by itself.
            log.warning("left the group without saying so", group=self.group)

    @property
    def in_flight(self) -> int:
        """How many records are taken and not finished."""
        return self._lanes.count

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """The partitions that are ours now."""
        return frozenset(self._consumer.assignment()) if self._consumer is not None else frozenset()

    @property
    def _consumer(self) -> AIOKafkaConsumer | None:
        return self._subscriber.consumer

    async def _take(self, records: Iterable[Record]) -> None:
        # All of them at once: while we wait for room a rebalance may give their partitions to somebody else.
        ours = [
            Taken(record, progress)
            for record in records
            if (progress := self._progress.get(TopicPartition(record.topic, record.partition))) is not None
        ]
        for taken in ours:
            taken.progress.take(taken.record.offset, taken.record.timestamp)
        for taken in ours:
            if self._stopping:
                return
            self.last_progress = time.monotonic()
            if self._delivery.passes_over(taken.record, taken.record.topic.removeprefix(self._prefix)):
                taken.progress.finish(taken.record.offset)
            else:
                await self._lanes.put(taken)
        self._gauge.set(self._lanes.count)

    async def _run(self, taken: Taken) -> None:
        record, progress, partition = taken.record, taken.progress, taken.partition
        if self._stopping or progress.closed:
            return
        progress.running += 1
        try:
            died = await self._delivery.deliver(record, record.topic.removeprefix(self._prefix))
        except Stopping:
            return
        except Exception as failure:  # noqa: BLE001 -- a bug of the loop itself: the partition must not pass the record
            log.critical("delivery failed", partition=str(partition), offset=record.offset, exc_info=failure)
            self._give_up(f"{partition.topic}/{partition.partition}: delivery failed at offset {record.offset}")
            return
        finally:
            progress.running -= 1
            self._ended.set()
        progress.finish(record.offset)
        self.last_progress = time.monotonic()
        if not is_replay(record.headers):
            # Of an operator's replays many may die once more; that says nothing about us.
            self._count_dead(partition, died=died)

    def _count_dead(self, partition: TopicPartition, *, died: bool) -> None:
        if not died:
            self._dead_in_a_row.pop(partition, None)
            return
        count = self._dead_in_a_row[partition] = self._dead_in_a_row.get(partition, 0) + 1
        if count >= DEAD_IN_A_ROW:
            self._give_up(f"{partition.topic}/{partition.partition}: {count} dead letters in a row")

    def _oldest_seconds(self) -> float:
        written = [progress.oldest for progress in self._progress.values() if progress.oldest is not None]
        return max(0.0, time.time() - min(written) / 1000) if written else 0.0

    def _give_up(self, why: str) -> None:
        """Stop consuming: a human must look, and health says so."""
        if self.fault is None:
            self.fault = why
            log.critical("consumer stopped", reason=why, group=self.group)
        self._stopping = True
        if self._consumer is not None:
            self._consumer.pause(*self._consumer.assignment())

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 -- all of them
        """Finish what is under way, begin nothing more, commit. All partitions are given back before any is given out.

        Whatever is still under way then may run on; the inbox of whoever gets the partition knows what it has done.
        """
        for progress in self._progress.values():
            progress.closed = True
        try:
            async with asyncio.timeout(REVOKE_SECONDS):
                while any(progress.running for progress in self._progress.values()):
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            log.warning("rebalance with messages under way", group=self.group)
        await self._commit_bounded()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begin anew with these partitions; a consumer that has given up reads none of them."""
        self.last_progress = time.monotonic()
        self._progress = {partition: OffsetTracker() for partition in assigned}
        self._dead_in_a_row.clear()
        if self.fault is not None and self._consumer is not None:
            self._consumer.pause(*assigned)

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            try:
                await self._commit()
            except Exception:  # noqa: BLE001 -- without commits all would come back at the next start
                log.exception("offsets not committed", group=self.group)

    async def _commit_bounded(self) -> None:
        """Commit what can be committed in a few seconds; the rest comes back, and the inbox knows it."""
        try:
            async with asyncio.timeout(LAST_COMMIT_SECONDS):
                await self._commit()
        except TimeoutError:
            log.warning("offsets not committed", group=self.group, error="TimeoutError")

    async def _commit(self) -> None:
        consumer, progress_of = self._consumer, self._progress
        offsets = {tp: done.position for tp, done in progress_of.items() if done.position is not None}
        if consumer is None or not offsets:
            return
        try:
            await consumer.commit(offsets)
        except (KafkaError, IllegalStateError) as failure:
            # The records come back to whoever owns the partition now; the inbox knows them.
            log.warning("offsets not committed", group=self.group, error=type(failure).__name__)
            return
        for partition, position in offsets.items():
            if progress_of[partition].position == position:
                progress_of[partition].position = None


async def _leave_raw(records: tuple[Record, ...]) -> KafkaMessage:
    """FastStream's own parser decodes every header and so fails a whole batch for one that isn't UTF-8."""
    return KafkaMessage(raw_message=records, body=b"", consumer=FAKE_CONSUMER)


async def _leave_records(message: KafkaMessage) -> tuple[Record, ...]:
    return cast("tuple[Record, ...]", message.raw_message)
