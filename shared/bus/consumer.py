"""Kafka consumer of a service.

It handles many records concurrently, records with the same key one at a time and in order, and commits an offset only
once every record before it is finished.

FastStream runs the aiokafka consumer and hands over raw records in batches. The loop over them is Nest's own, because
every acknowledgement policy of FastStream either loses records or stops at a record that always fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, cast

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import FAKE_CONSUMER, KafkaMessage
from faststream.kafka.subscriber.usecase import BatchSubscriber

from shared.bus.aiokafka_patch import patch_aiokafka
from shared.bus.committed_topics import CommittedTopics
from shared.bus.delivery import Delivery, Stopping
from shared.bus.fetcher import IDLE_WAIT_MILLISECONDS, fetched_end
from shared.bus.group_member import (
    HEARTBEAT_SECONDS,
    SESSION_SECONDS,
    Fenced,
    GroupMember,
    SpareHeartbeats,
    use_group_members,
)
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.keyed_executor import KeyedExecutor, Postponed, Record, TrackedRecord, kind_of
from shared.bus.offset_gaps import OffsetGap, find_gaps, find_lost, last_read_of
from shared.bus.offset_tracker import OffsetTracker
from shared.bus.partition_pauses import PartitionPauses
from shared.bus.producer import BusDown
from shared.dead_letters.records import is_replay
from shared.metrics import EXPIRED, IN_FLIGHT, PARTITIONS
from shared.telemetry import log

COMMIT_SECONDS: Final = 0.1
"""Interval of offset commits while records are finished. After a crash the records since the last commit are delivered
again; the inbox absorbs them."""
REVOKE_SECONDS: Final = 15.0
"""How long a rebalance waits for running records. Below the rebalance timeout of 30 s, after which the group continues
without this consumer."""
LAST_COMMIT_SECONDS: Final = 5.0
"""Timeout of the offset commit of a rebalance or a stop."""
GAP_CHECK_SECONDS: Final = 10.0
"""Timeout of reading the offsets to check for gaps."""
STOP_SECONDS: Final = 5.0
"""Timeout of leaving the consumer group."""
POLL_MILLISECONDS: Final = 10 * 365 * 24 * 3600 * 1000
"""Poll timeout, in effect infinite. After an empty poll FastStream sleeps as long again, which would delay the next
record."""


OnGaps = Callable[[list[OffsetGap]], Awaitable[None]]
"""Function that orders the messages of expired records to be sent again."""


class Consumer(ConsumerRebalanceListener):  # type: ignore[misc]
    """The consumer of one service.

    Args:
        kafka: the connection to Kafka.
        prefix: prefix of every topic name.
        group: consumer group; the instances of a service share its partitions.
        instance: name of this process, unique in the group; a restarted process has the same.
        topics: topics to consume, without the prefix.
        delivery: handles the records.
        in_flight: maximum number of queries, and of other records, that are handled at the same time.
        service: service name, for metrics.
        pauses: pauses partitions, and resumes them.
        on_gaps: awaited with the records that expired unread, before the offsets after them are committed. It may raise
            BusDown, and is awaited again.
        committed_topics: topics in which the group has committed offsets before; without it no topic counts as lost.

    Attributes:
        last_progress: when a record was last fetched or finished, monotonic seconds.
        fault: why this consumer has stopped for good; None if it has not.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        prefix: str,
        group: str,
        instance: str,
        topics: Sequence[str],
        delivery: Delivery,
        in_flight: int,
        service: str,
        pauses: PartitionPauses,
        on_gaps: OnGaps,
        committed_topics: CommittedTopics | None = None,
    ) -> None:
        patch_aiokafka()
        use_group_members()
        self._prefix = prefix
        self._kafka = kafka
        self.group = group
        self.instance = instance
        self.topics = tuple(prefix + topic for topic in topics)
        self._delivery = delivery
        self._executor = KeyedExecutor(self._run, in_flight)
        self._trackers: dict[TopicPartition, OffsetTracker] = {}
        self.pauses = pauses
        pauses.attach(self)
        self._stopping = False
        self._record_ended = asyncio.Event()
        self._committer: asyncio.Task[None] | None = None
        self._to_commit = asyncio.Event()
        """Set once there may be offsets to commit, partitions to check or to release."""
        self._on_gaps = on_gaps
        self._committed_topics = committed_topics
        self._unchecked: set[TopicPartition] = set()
        """Partitions to be checked for gaps before their next commit, which would hide them."""
        self._service = service
        self._member: GroupMember | None = None
        self._spare_heartbeats: SpareHeartbeats | None = None
        PARTITIONS.labels(service).set_function(lambda: len(self.assigned))
        IN_FLIGHT.labels(service).set_function(lambda: self._executor.count)
        self.last_progress = time.monotonic()
        self.fault: str | None = None
        self.broker = KafkaBroker(
            kafka.bootstrap,
            client_id=group,
            allow_auto_create_topics=False,
            request_timeout_ms=10_000,
            retry_backoff_ms=200,
            metadata_max_age_ms=60_000,
            apply_types=False,
            logger=None,
        )
        # FastStream has no parameter for some of them.
        self.broker._connection_kwargs.update(kafka.options)  # noqa: SLF001
        self._subscriber: BatchSubscriber = self.broker.subscriber(
            *self.topics,
            group_id=group,
            batch=True,
            batch_timeout_ms=POLL_MILLISECONDS,
            max_records=in_flight,
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=IDLE_WAIT_MILLISECONDS,
            group_instance_id=instance,
            session_timeout_ms=int(SESSION_SECONDS * 1000),
            heartbeat_interval_ms=int(HEARTBEAT_SECONDS * 1000),
            rebalance_timeout_ms=30_000,
            max_poll_interval_ms=300_000,
            listener=self,
            parser=_parse,
            decoder=_decode,
        )
        self._subscriber(self._take)

    async def start(self) -> None:
        """Join the consumer group and start to consume; raise KafkaError if Kafka can't be reached."""
        await self.broker.start()
        assert self._consumer is not None  # noqa: S101 -- the broker has started it
        member: GroupMember = self._consumer._coordinator  # noqa: SLF001 -- aiokafka has no callback for it
        member.on_fenced = self._fenced
        self._member = member
        self._spare_heartbeats = SpareHeartbeats(self._kafka, member)
        self._spare_heartbeats.start()
        self._committer = asyncio.create_task(self._commit_regularly())

    async def stop(self, within: float) -> None:
        """Fetch no more records, finish the fetched ones, commit the offsets and leave the group.

        Records not finished ``within`` so many seconds are delivered again to another instance.
        """
        self._stopping = True
        consumer = self._consumer
        if consumer is not None:
            consumer.pause(*consumer.assignment())
        self._executor.lift_limit()
        await self.pauses.stop()
        try:
            async with asyncio.timeout(within):
                await self._executor.wait_idle()
                await self._delivery.replies_sent()
        except TimeoutError:
            log.warning("stopped with unfinished messages", count=self._executor.count, group=self.group)
        self._delivery.stop()
        self._delivery.unknown_types.clear()
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
        await self._commit_within_timeout()
        if self._spare_heartbeats is not None:
            self._spare_heartbeats.stop()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.broker.stop()
        except TimeoutError:
            # aiokafka waits for unreachable brokers (aio-libs/aiokafka#1101); the session timeout ends the membership.
            log.warning("consumer group not left", group=self.group)

    async def refresh_partitions(self) -> None:
        """Read the numbers of partitions from Kafka; additional ones are assigned in a rebalance."""
        if self._consumer is not None:
            # aiokafka has no method for it.
            await self._consumer._client.force_metadata_update()  # noqa: SLF001

    @property
    def in_flight(self) -> int:
        """Number of unfinished records that do not wait for a newer release."""
        return self._executor.count - self._executor.postponed.total()

    @property
    def assigned(self) -> frozenset[TopicPartition]:
        """Partitions assigned to this consumer."""
        return frozenset(self._consumer.assignment()) if self._consumer is not None else frozenset()

    @property
    def trackers(self) -> dict[TopicPartition, OffsetTracker]:
        """The unfinished records of each assigned partition."""
        return self._trackers

    async def first_unfinished(self, partition: TopicPartition) -> int:
        """Return the offset of the first unfinished record of an assigned partition.

        Raises:
            KafkaError, IllegalStateError: the partition is no longer assigned.
        """
        tracker = self._trackers.get(partition)
        first = None if tracker is None else tracker.first_unfinished
        if first is None and self._consumer is not None:
            first = await self._consumer.position(partition)
        return first or 0

    def has_finished(self, record: Record) -> bool:
        """Return True if a record of an assigned partition is known to be finished."""
        tracker = self._trackers.get(TopicPartition(record.topic, record.partition))
        return tracker is not None and tracker.has_finished(record.offset)

    async def positions_behind(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offsets of the next records of assigned partitions, of those on which Kafka has further records.

        Raises:
            KafkaError, IllegalStateError: Kafka can't be reached, or one is no longer assigned.
        """
        if self._consumer is None or not partitions:
            return {}
        ends = {each: end for each in partitions if (end := fetched_end(self._consumer, each)) is not None}
        if unknown := [each for each in partitions if each not in ends]:
            ends |= await self._consumer.end_offsets(unknown)
        positions = {each: await self._consumer.position(each) for each in partitions if ends[each]}
        return {each: position for each, position in positions.items() if position < ends[each]}

    async def caught_up(self) -> bool:
        """Whether Kafka's last responses prove that every assigned record was fetched, handled and committed.

        Raises:
            IllegalStateError: a partition is no longer assigned.
        """
        consumer, assigned = self._consumer, self.assigned
        if consumer is None or not assigned or not self.settled:
            return False
        for each in assigned:
            if fetched_end(consumer, each) != await consumer.position(each):
                return False
        return True

    async def first_after(self, times: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the timestamps of the first records of partitions at or after a time, Unix milliseconds.

        Raises:
            KafkaError: Kafka can't be reached.
        """
        found = {} if self._consumer is None else await self._consumer.offsets_for_times(dict(times))
        return {partition: each.timestamp for partition, each in found.items() if each is not None}

    def stop_fetching(self, partition: TopicPartition) -> None:
        """Fetch no more records of an assigned partition."""
        if self._consumer is not None:
            self._consumer.pause(partition)

    def fetch(self, partition: TopicPartition, offset: int | None = None) -> None:
        """Fetch its records again, from an offset or from the current position."""
        if self._consumer is None or self._stopping:
            return
        if offset is not None:
            self._consumer.seek(partition, offset)
        self._consumer.resume(partition)

    async def wait_for_running(self, tracker: OffsetTracker) -> None:
        """Wait until no record of a tracker is being handled."""
        while tracker.running:
            self._record_ended.clear()
            await self._record_ended.wait()

    def postponed(self, partition: TopicPartition) -> tuple[int, int]:
        """Return the number and the bytes of its postponed records."""
        return self._executor.postponed[partition], self._executor.postponed_bytes[partition]

    def retry_postponed(self) -> None:
        """Try the postponed records now; those of closed trackers are dropped."""
        self._executor.retry_postponed()

    @property
    def _consumer(self) -> AIOKafkaConsumer | None:
        return self._subscriber.consumer

    async def _take(self, records: Iterable[Record]) -> None:
        """Track a batch of records and submit them to the executor."""
        # All are tracked first: while ``submit`` waits, a rebalance may replace the trackers.
        batch = [
            TrackedRecord(record, partition, tracker, kind_of(record))
            for record in records
            if (tracker := self._trackers.get(partition := TopicPartition(record.topic, record.partition))) is not None
        ]
        for tracked in batch:
            if tracked.tracker.add(tracked.record.offset, tracked.record.timestamp):
                self._unchecked.add(tracked.partition)
        for tracked in batch:
            if self._stopping:
                return
            self.last_progress = time.monotonic()
            topic, tracker, offset = tracked.partition.topic, tracked.tracker, tracked.record.offset
            # After a pause the partition is read again, with records that were finished meanwhile.
            if tracker.has_finished(offset) or self._delivery.skips(tracked.record, topic.removeprefix(self._prefix)):
                tracker.finish(offset)
                self._to_commit.set()
            else:
                await self._executor.submit(tracked)
        self.pauses.hold_back({tracked.partition for tracked in batch})

    async def _run(self, tracked: TrackedRecord) -> None:
        """Deliver one record and mark it as finished."""
        record, tracker, partition = tracked.record, tracked.tracker, tracked.partition
        topic = record.topic.removeprefix(self._prefix)
        if self._stopping or tracker.closed:
            self._delivery.unknown_types.forget(record, topic)
            return
        tracker.running += 1
        try:
            dead_lettered = await self._deliver(record, topic, tolerant=self.pauses.tolerates(partition))
        except Stopping:
            return
        except Postponed:
            raise
        except Exception as failure:  # noqa: BLE001 -- a bug of the bus: the offset must not pass this record
            log.critical("delivery failed", partition=str(partition), offset=record.offset, exc_info=failure)
            self.pauses.pause(partition, f"delivery failed at offset {record.offset}")
            return
        finally:
            tracker.running -= 1
            self._record_ended.set()
        tracker.finish(record.offset)
        self._to_commit.set()
        self.last_progress = time.monotonic()
        if not is_replay(record.headers):
            # An operator may replay many messages that fail again; that is no sign of a fault in the service.
            self.pauses.count(partition, dead_lettered=dead_lettered)

    async def _deliver(self, record: Record, topic: str, *, tolerant: bool) -> bool:
        """Deliver a record; return True if it was dead-lettered, if ``tolerant`` also for a bug of the bus."""
        try:
            return await self._delivery.deliver(record, topic)
        except Exception as failure:
            if not tolerant or isinstance(failure, Stopping | Postponed):
                raise
            await self._delivery.dead_letter(record, topic, "failing", type(failure).__name__, failure)
            return True

    def _give_up(self, reason: str) -> None:
        """Stop consuming until an operator restarts the service; its health check fails with the reason."""
        if self.fault is None:
            self.fault = reason
            log.critical("consumer stopped", reason=reason, group=self.group)
        self._stopping = True
        if self._consumer is not None:
            self._consumer.pause(*self._consumer.assignment())

    def _fenced(self) -> None:
        """Stop consuming: the messages of this process are handled by the one that has taken its name."""
        self._trackers = {}
        if not self._stopping:
            self._give_up(
                f"another process has joined the group {self.group} as {self.instance}: "
                "give each process its own NEST_INSTANCE, or end the other one, and restart this one"
            )

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # noqa: ARG002 -- all of them
        """Start no further records, wait for the running ones, commit their offsets.

        Every partition is revoked before any is assigned (eager rebalance). A record still running after
        ``REVOKE_SECONDS`` or during an outage of MongoDB continues; if the new owner of the
        partition handles it too, the inbox keeps one of the two.
        """
        for tracker in self._trackers.values():
            tracker.closed = True
        self._executor.retry_postponed()
        try:
            async with asyncio.timeout(REVOKE_SECONDS):
                while not self._delivery.in_outage and any(tracker.running for tracker in self._trackers.values()):
                    self._record_ended.clear()
                    await self._record_ended.wait()
        except TimeoutError:
            log.warning("rebalance with unfinished messages", group=self.group)
        await self._commit_within_timeout()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Start with new trackers; a consumer with a fault keeps all partitions paused."""
        self.last_progress = time.monotonic()
        self._trackers = {partition: OffsetTracker() for partition in assigned}
        self._unchecked = set(self._trackers)
        self._to_commit.set()
        if self.fault is not None and self._consumer is not None:
            self._consumer.pause(*assigned)
        self.pauses.assign(list(self._trackers))

    async def _commit_regularly(self) -> None:
        while True:
            await self._to_commit.wait()
            self._to_commit.clear()
            await asyncio.sleep(COMMIT_SECONDS)
            try:
                self.pauses.release_held()
                if self._unchecked:
                    await self._check_for_gaps()
                await self._commit()
            except Fenced:
                return  # `_fenced` has logged it
            except Exception:  # noqa: BLE001 -- without this task every record would be delivered again at a restart
                log.exception("offsets not committed", group=self.group)
            if not self.settled or self.pauses.holds_back:
                self._to_commit.set()

    @property
    def settled(self) -> bool:
        """Whether no gap has to be checked and no offset to be committed."""
        return not self._unchecked and all(tracker.position is None for tracker in self._trackers.values())

    async def _check_for_gaps(self) -> None:
        """Report the records of unchecked partitions that expired unread, and continue behind them."""
        trackers, partitions = self._trackers, self._unchecked.intersection(self._trackers)
        if self._consumer is None or self._member is None or not partitions:
            return
        try:
            async with asyncio.timeout(GAP_CHECK_SECONDS):
                beginnings = await self._consumer.beginning_offsets(list(partitions))
                ends = await self._consumer.end_offsets(list(partitions))
                committed = await self._member.fetch_committed_offsets(self._all_partitions(partitions))
            gaps = find_gaps(partitions, committed, beginnings)
            known = self._committed_topics
            had, elsewhere = (known.names, await known.elsewhere()) if known is not None else ((), ())
            lost = find_lost(partitions, committed, beginnings, ends, had, elsewhere=elsewhere)
            gaps = [*lost, *(gap for gap in gaps if gap.partition not in {each.partition for each in lost})]
            if gaps:
                await self._on_gaps(gaps)
        except (KafkaError, BusDown, TimeoutError) as failure:
            log.warning("expired records not checked", group=self.group, error=type(failure).__name__)
            return
        for partition in partitions - committed.keys():
            # Otherwise a partition without records would look lost at the next start.
            trackers[partition].begin_at(beginnings[partition])
        for partition in partitions:
            trackers[partition].last_read = trackers[partition].last_read or last_read_of(committed.get(partition))
        for gap in gaps:
            if gap.lost:
                trackers[gap.partition].begin_at(gap.next)
                log.critical(
                    "records lost",
                    topic=gap.partition.topic,
                    partition=gap.partition.partition,
                    first=gap.next,
                    group=self.group,
                )
                continue
            EXPIRED.labels(self._service, gap.partition.topic.removeprefix(self._prefix)).inc(gap.count)
            log.critical(
                "records expired unread",
                topic=gap.partition.topic,
                partition=gap.partition.partition,
                first=gap.first,
                count=gap.count,
                group=self.group,
            )
            tracker = trackers[gap.partition]
            tracker.position = max(tracker.position or 0, gap.next)
        if trackers is self._trackers:
            self._unchecked -= partitions

    def _all_partitions(self, some: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Return all partitions of the topics of some."""
        assert self._consumer is not None  # noqa: S101 -- the caller has checked it
        return [
            TopicPartition(topic, number)
            for topic in {partition.topic for partition in some}
            for number in self._consumer.partitions_for_topic(topic) or ()
        ]

    async def _commit_within_timeout(self) -> None:
        """Commit the offsets; on a timeout the records are delivered again and the inbox absorbs them."""
        try:
            async with asyncio.timeout(LAST_COMMIT_SECONDS):
                await self._commit()
        except TimeoutError:
            log.warning("offsets not committed", group=self.group, error="TimeoutError")

    async def _commit(self) -> None:
        consumer, trackers = self._consumer, self._trackers
        offsets = {
            tp: (tracker.position, str(tracker.last_read))
            for tp, tracker in trackers.items()
            if tracker.position is not None and tp not in self._unchecked
        }
        if consumer is None or not offsets or self._member is None or self._member.generation < 0:
            # Without a generation it is joining the group again, and Kafka would refuse the commit.
            return
        try:
            await consumer.commit(offsets)
        except Fenced:
            return  # the process that has the name now handles the records; `_fenced` has logged it
        except (KafkaError, IllegalStateError) as failure:
            # The records are delivered again to the partition's new owner; the inbox absorbs them.
            log.warning("offsets not committed", group=self.group, error=type(failure).__name__)
            return
        if self._committed_topics is not None:
            await self._committed_topics.add(partition.topic for partition in offsets)
        for partition, (position, _) in offsets.items():
            if trackers[partition].position == position:
                trackers[partition].position = None


async def _parse(records: tuple[Record, ...]) -> KafkaMessage:
    """Pass on the raw records. FastStream's own parser fails for a whole batch if one header is not UTF-8."""
    return KafkaMessage(raw_message=records, body=b"", consumer=FAKE_CONSUMER)


async def _decode(message: KafkaMessage) -> tuple[Record, ...]:
    return cast("tuple[Record, ...]", message.raw_message)
