"""Topic reader: reads every record of a topic in one process, without a consumer group, and follows new ones.

Used for what every instance needs (signing keys, revocations) and for what a single instance waits for (replies). No
offsets are committed: reading starts at the beginning or at the end of the topic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

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
"""After so long without a record the end offsets are compared with the position. aiokafka has open bugs after broker
restarts (aio-libs/aiokafka#1037, #703, #718), in which a stuck consumer looks like a quiet topic. They are read from
Kafka only if no fresh response states them."""
KAFKA_SECONDS: Final = 5.0
"""Timeout of a request to Kafka."""
CATCH_UP_MILLISECONDS: Final = 500
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0


class TopicReader:
    """Reads and follows a topic; reconnects after failures and continues at its position.

    Records without a valid MAC are counted, logged and not passed on.

    Args:
        kafka: the connection to Kafka.
        topic: full topic name.
        on_record: receives each record.
        macs: checks the MACs.
        partitions: partitions to read; all by default.
        from_end: skip the records that exist at the start.
        client_id: name in the broker's log.
        silence_seconds: how long without a record before the end offsets are checked.

    Attributes:
        following: True while new records are received; False while Kafka is unavailable.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        topic: str,
        on_record: OnRecord,
        *,
        macs: RecordMacs,
        partitions: Sequence[int] | None = None,
        from_end: bool = False,
        client_id: str = "nest-tail",
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        patch_aiokafka()
        self._kafka = kafka
        self._topic = topic
        self._on_record = on_record
        self._macs = macs
        self._name = macs.without_prefix(topic)
        self._wanted = partitions
        self._from_end = from_end
        self._client_id = client_id
        self._silence_seconds = silence_seconds
        self._positions: dict[TopicPartition, int] = {}
        self._unreachable: dict[TopicPartition, int] = {}
        """End offsets that a new consumer did not reach either, because compaction removed the records before them."""
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self.following = False

    async def start(self, within: float = 30.0) -> None:
        """Read the records that exist now, then follow in the background.

        Raises:
            BusDown: they were not read ``within`` so many seconds, or Kafka or the topic is unavailable.
        """
        try:
            async with asyncio.timeout(within):
                self._consumer = await self._open()
                await self._catch_up(self._consumer)
        except BaseException as failure:
            await self._close()
            if isinstance(failure, KafkaError | TimeoutError):
                raise BusDown(f"{self._topic} can't be read: {type(failure).__name__}") from failure
            raise
        self.following = True
        self._task = asyncio.create_task(self._follow(self._consumer))

    async def stop(self) -> None:
        """Stop following and disconnect."""
        self.following = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()

    async def _open(self) -> AIOKafkaConsumer:
        """Open a consumer at the position of the previous one, or where reading starts."""
        consumer = AIOKafkaConsumer(
            self._topic,
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
            existing = consumer.partitions_for_topic(self._topic) or ()
            # The subscription only served to load the partitions. It would start again whenever one is added; an
            # assignment does not change.
            consumer.unsubscribe()
            partitions = [TopicPartition(self._topic, number) for number in sorted(self._wanted or existing)]
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
            for record in records:
                try:
                    if not self._macs.refuses(self._name, record):
                        self._on_record(record)
                except Exception:  # noqa: BLE001 -- one bad record must not end the reading
                    log.exception("record not processed", topic=self._topic, offset=record.offset)
            self._positions[partition] = records[-1].offset + 1
        return bool(batches)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        """Read new records; after any failure with a new consumer."""
        while True:
            try:
                await self._read_until_failure(consumer)
            except Exception as failure:  # noqa: BLE001 -- whatever the failure, the topic must be followed
                self.following = False
                log.warning("topic reader interrupted", topic=self._topic, error=f"{type(failure).__name__}: {failure}")
                await self._close()
                consumer = self._consumer = await self._reopen()
                self.following = True

    async def _read_until_failure(self, consumer: AIOKafkaConsumer) -> None:
        """Read until the consumer raises KafkaError, or _Stuck because it does not return records of Kafka."""
        missing: dict[TopicPartition, int] = {}
        while True:
            if await self._read(consumer, int(self._silence_seconds * 1000)):
                self.following, missing = True, {}
                continue
            before, missing = missing, await self._unread_ends(consumer)
            # Seen twice, because a record that arrived during the first check was not late.
            if missing and before == missing and missing != self._unreachable:
                self._unreachable = missing
                for partition, end in missing.items():
                    if end < self._positions[partition]:
                        # The topic was deleted and created again, so its records are read from where reading starts.
                        del self._positions[partition]
                raise _Stuck(f"position of {len(missing)} partitions is not at the end")

    async def _unread_ends(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """Return the end offsets that differ from the position; none if Kafka does not answer."""
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
        return {partition: end for partition, end in ends.items() if end != self._positions[partition]}

    async def _reopen(self) -> AIOKafkaConsumer:
        pause = FIRST_PAUSE
        while True:
            try:
                async with asyncio.timeout(10 * KAFKA_SECONDS):
                    return await self._open()
            except (KafkaError, BusDown, TimeoutError):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _close(self, opening: AIOKafkaConsumer | None = None) -> None:
        """Close a consumer that could not be opened, by default the current one."""
        consumer, self._consumer = opening or self._consumer, None
        if consumer is not None:
            # aiokafka's stop may wait for unreachable brokers.
            with suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(consumer.stop(), KAFKA_SECONDS)


class _Stuck(Exception):
    """Kafka has records that the consumer does not return."""
