"""Topic reader: reads every record of some topics in one process, without a consumer group, and follows new ones.

Used for what every instance needs (signing keys, revocations) and for what a single instance waits for (replies). No
offsets are committed: reading starts at the beginning or at the end of a topic. A process has one reader for all topics
that it follows, because each consumer costs the process and Kafka a connection and fetches of its own, also at rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from shared.bus.aiokafka_patch import patch_aiokafka
from shared.bus.fetcher import IDLE_WAIT_MILLISECONDS, fetched_end
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import BusDown
from shared.bus.record_macs import RecordMacs
from shared.telemetry import log

OnRecord = Callable[[ConsumerRecord], None]
"""Callback that receives each record, those of a partition in order. Its exceptions are logged and ignored."""
SILENCE_SECONDS: Final = 3.0
"""Interval at which the positions are compared with the end offsets. aiokafka has open bugs after broker restarts
(aio-libs/aiokafka#1037, #703, #718), in which a stuck consumer looks like quiet partitions. The end offsets are read
from Kafka only if no fresh response states them."""
KAFKA_SECONDS: Final = 5.0
"""Timeout of a request to Kafka."""
CATCH_UP_MILLISECONDS: Final = 500
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0


class _Gap(NamedTuple):
    """Offsets between which records of a partition are not read."""

    position: int
    end: int


class TopicReader:
    """Reads and follows topics; reconnects after failures and continues at its positions.

    Records without a valid MAC are counted, logged and not passed on.

    Args:
        kafka: the connection to Kafka.
        macs: checks the MACs.
        partitions: partitions of each topic to read; all by default.
        from_end: skip the records that exist when a topic is added.
        client_id: name in the broker's log.
        silence_seconds: interval at which the positions are compared with the end offsets.

    Attributes:
        following: True while new records are received; False while Kafka is unavailable.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        macs: RecordMacs,
        partitions: Sequence[int] | None = None,
        from_end: bool = False,
        client_id: str = "nest-tail",
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        patch_aiokafka()
        self._kafka = kafka
        self._macs = macs
        self._wanted = partitions
        self._from_end = from_end
        self._client_id = client_id
        self._silence_seconds = silence_seconds
        self._topics: dict[str, OnRecord] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._unreachable: dict[TopicPartition, _Gap] = {}
        """Gaps that a new consumer did not close either, because compaction removed the records within them."""
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self.following = False

    async def follow(self, topics: Mapping[str, OnRecord], within: float = 30.0) -> None:
        """Read the records that topics have now, then follow them in the background, beside those added before.

        Args:
            topics: what receives the records of each topic, by full name.
            within: timeout in seconds.

        Raises:
            BusDown: the records were not read in time, or Kafka or a topic is unavailable. The topics added before are
                followed further.
        """
        await self.stop()
        before = self._topics
        self._topics = {**before, **topics}
        try:
            async with asyncio.timeout(within):
                consumer = self._consumer = await self._open()
                await self._catch_up(consumer)
        except BaseException as failure:
            await self._close()
            self._topics = before
            self._positions = {each: offset for each, offset in self._positions.items() if each.topic in before}
            if isinstance(failure, KafkaError | TimeoutError):
                raise BusDown(f"{', '.join(topics)} can't be read: {type(failure).__name__}") from failure
            raise
        else:
            self.following = True
        finally:
            if self._topics:
                self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following and disconnect."""
        self.following = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()

    async def _open(self) -> AIOKafkaConsumer:
        """Open a consumer at the positions of the previous one, or where reading starts."""
        consumer = AIOKafkaConsumer(
            *self._topics,
            **self._kafka.options,
            client_id=self._client_id,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest" if self._from_end else "earliest",
            fetch_max_wait_ms=IDLE_WAIT_MILLISECONDS,
            request_timeout_ms=10_000,
            retry_backoff_ms=100,
            metadata_max_age_ms=60_000,
        )
        try:
            await consumer.start()
            existing = {topic: consumer.partitions_for_topic(topic) or () for topic in self._topics}
            # The subscription only served to load the partitions. It would start again whenever one is added; an
            # assignment does not change.
            consumer.unsubscribe()
            partitions = [
                TopicPartition(topic, number)
                for topic, numbers in existing.items()
                for number in sorted(self._wanted or numbers)
            ]
            consumer.assign(partitions)
            for partition in partitions:
                if partition in self._positions:
                    consumer.seek(partition, self._positions[partition])
                # Awaited in any case: it fixes the position, from which no later record is missed.
                self._positions[partition] = await consumer.position(partition)
        except BaseException:
            await self._close(consumer)
            raise
        return consumer

    async def _catch_up(self, consumer: AIOKafkaConsumer) -> None:
        """Read up to the end offsets of now."""
        ends = await consumer.end_offsets(list(self._positions))
        while behind := [partition for partition, end in ends.items() if self._positions[partition] < end]:
            started = time.time() * 1000
            if await self._read(consumer, CATCH_UP_MILLISECONDS):
                continue
            # Compaction may have removed the last records, so that the end offset is never reached. Then an empty fetch
            # response from Kafka shows that everything was read.
            if all((consumer.last_poll_timestamp(partition) or 0) >= started for partition in behind):
                return

    async def _read(self, consumer: AIOKafkaConsumer, milliseconds: int) -> bool:
        """Process the next records; return False if there were none in time."""
        batches: dict[TopicPartition, list[Any]] = await consumer.getmany(timeout_ms=milliseconds)
        for partition, records in batches.items():
            on_record, name = self._topics[partition.topic], self._macs.without_prefix(partition.topic)
            for record in records:
                try:
                    if not self._macs.refuses(name, record):
                        on_record(record)
                except Exception:  # noqa: BLE001 -- one bad record must not end the reading
                    log.exception("record not processed", topic=partition.topic, offset=record.offset)
            self._positions[partition] = records[-1].offset + 1
        return bool(batches)

    async def _follow(self) -> None:
        """Read new records; after any failure with a new consumer."""
        pause = FIRST_PAUSE
        while True:
            try:
                if self._consumer is None:
                    async with asyncio.timeout(10 * KAFKA_SECONDS):
                        self._consumer = await self._open()
                self.following, pause = True, FIRST_PAUSE
                await self._read_until_failure(self._consumer)
            except Exception as failure:  # noqa: BLE001 -- whatever the failure, the topics must be followed
                self.following = False
                error = f"{type(failure).__name__}: {failure}"
                log.warning("topic reader interrupted", topics=list(self._topics), error=error)
                await self._close()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _read_until_failure(self, consumer: AIOKafkaConsumer) -> None:
        """Read until the consumer raises KafkaError, or _Stuck because it does not return records of Kafka."""
        unread: dict[TopicPartition, _Gap] = {}
        compared = time.monotonic()
        while True:
            remaining = max(0.0, compared + self._silence_seconds - time.monotonic())
            if await self._read(consumer, int(remaining * 1000)):
                self.following = True
            if time.monotonic() < compared + self._silence_seconds:
                continue
            compared = time.monotonic()
            before, unread = unread, await self._unread(consumer)
            # Seen twice, because a record that arrived during the first check was not late.
            stuck = {
                partition: gap
                for partition, gap in unread.items()
                if partition in before
                and before[partition].position == gap.position
                and self._unreachable.get(partition) != gap
            }
            if stuck:
                self._unreachable |= stuck
                for partition, gap in stuck.items():
                    if gap.end < gap.position:
                        # The topic was deleted and created again, so its records are read from where reading starts.
                        del self._positions[partition]
                raise _Stuck(f"position of {len(stuck)} partitions is not at the end")

    async def _unread(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, _Gap]:
        """Return the partitions whose position is not their end offset; none if Kafka does not answer."""
        ends = {each: end for each in self._positions if (end := fetched_end(consumer, each)) is not None}
        try:
            if unknown := [each for each in self._positions if each not in ends]:
                async with asyncio.timeout(KAFKA_SECONDS):
                    ends |= await consumer.end_offsets(unknown)
        except (KafkaError, TimeoutError):
            # The consumer reconnects by itself; the health check reports it meanwhile.
            self.following = False
            return {}
        self.following = True
        gaps = {partition: _Gap(self._positions[partition], end) for partition, end in ends.items()}
        return {partition: gap for partition, gap in gaps.items() if gap.position != gap.end}

    async def _close(self, opening: AIOKafkaConsumer | None = None) -> None:
        """Close a consumer that could not be opened, by default the current one."""
        consumer, self._consumer = opening or self._consumer, None
        if consumer is not None:
            # aiokafka's stop may wait for unreachable brokers.
            with suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(consumer.stop(), KAFKA_SECONDS)


class _Stuck(Exception):
    """Kafka has records that the consumer does not return."""
