"""How does one process hear everything on a topic, without a consumer group? It reads all of it, and goes on.

For what every instance must know (signing keys, revocations) and for what only one instance waits for (replies).
Nothing is committed: whoever starts reads from the beginning, or from the end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from shared.bus.producer import BusDown
from shared.telemetry import log

OnRecord = Callable[[ConsumerRecord], None]
"""Told each record, in its partition's order. What it raises is logged, and the next record follows."""
LOOK_SECONDS: Final = 5.0
"""After so long without a record Kafka is asked whether there is one: aiokafka has open bugs after broker restarts
(aio-libs/aiokafka#1037, #703, #718), and a quiet topic looks like a hanging consumer."""
ASK_SECONDS: Final = 5.0
CATCH_UP_MILLISECONDS: Final = 500
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0


class TopicReader:
    """Follows a topic; connects again by itself and goes on where it was.

    Args:
        bootstrap: ``host:port`` of brokers, separated by commas.
        topic: its name, prefix included.
        take: told each record.
        partitions: which ones; all by default.
        from_end: skips what is there when it starts.
        client_id: shown in the broker's log.
        look_seconds: how long a silence may last before Kafka is asked.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        take: OnRecord,
        *,
        partitions: Sequence[int] | None = None,
        from_end: bool = False,
        client_id: str = "nest-tail",
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._take = take
        self._wanted = partitions
        self._from_end = from_end
        self._client_id = client_id
        self._look_seconds = look_seconds
        self._positions: dict[TopicPartition, int] = {}
        self._unreachable: dict[TopicPartition, int] = {}
        """Ends that a fresh consumer did not reach either: compaction has removed what stood before them."""
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self.following = False
        """Whether records are heard as they come; False while Kafka is away."""

    async def start(self, within: float = 30.0) -> None:
        """Read what is there; returns when everything that was there at the call has been taken.

        Raises:
            BusDown: not done within so many seconds, or Kafka or the topic is not there.
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
        """Follow no more."""
        self.following = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()

    async def _open(self) -> AIOKafkaConsumer:
        """A consumer that stands where the last one stood, or where reading begins."""
        consumer = AIOKafkaConsumer(
            self._topic,
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest" if self._from_end else "earliest",
            fetch_max_wait_ms=100,
            request_timeout_ms=10_000,
            retry_backoff_ms=100,
            metadata_max_age_ms=60_000,
        )
        try:
            await consumer.start()
            there = consumer.partitions_for_topic(self._topic) or ()
            # It was subscribed to so that its partitions are known. A subscription would begin anew whenever one is
            # added; an assignment stays as it is.
            consumer.unsubscribe()
            partitions = [TopicPartition(self._topic, number) for number in sorted(self._wanted or there)]
            consumer.assign(partitions)
            for partition in partitions:
                if partition in self._positions:
                    consumer.seek(partition, self._positions[partition])
                # Asked for in any case: from then on nothing that comes in is missed.
                self._positions[partition] = await consumer.position(partition)
        except BaseException:
            await _close(consumer)
            raise
        return consumer

    async def _catch_up(self, consumer: AIOKafkaConsumer) -> None:
        ends = await consumer.end_offsets(list(self._positions))
        while behind := [partition for partition, end in ends.items() if self._positions[partition] < end]:
            began = time.time() * 1000
            if await self._read(consumer, CATCH_UP_MILLISECONDS):
                continue
            # Compaction may have removed the last records, so that no record stands before the end: then what says
            # that all was read is an answer of Kafka's with nothing in it.
            if all((consumer.last_poll_timestamp(partition) or 0) >= began for partition in behind):
                return

    async def _read(self, consumer: AIOKafkaConsumer, milliseconds: int) -> bool:
        """OnRecord what has come, waiting for it if need be; whether there was anything."""
        batches: dict[TopicPartition, list[Any]] = await consumer.getmany(timeout_ms=milliseconds)
        for partition, records in batches.items():
            for record in records:
                try:
                    self._take(record)
                except Exception:  # noqa: BLE001 -- one bad record must not deafen the process
                    log.exception("record not understood", topic=self._topic, offset=record.offset)
            self._positions[partition] = records[-1].offset + 1
        return bool(batches)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                await self._read_on(consumer)
            except Exception as failure:  # noqa: BLE001 -- whatever ended it, the topic must be followed
                self.following = False
                log.warning("tail interrupted", topic=self._topic, error=f"{type(failure).__name__}: {failure}")
                await self._close()
                consumer = self._consumer = await self._open_again()
                self.following = True

    async def _read_on(self, consumer: AIOKafkaConsumer) -> None:
        """Read until something is wrong.

        Raises:
            KafkaError: the consumer says so.
            _Stuck: Kafka has records, and the consumer does not bring them.
        """
        waiting: dict[TopicPartition, int] = {}
        while True:
            if await self._read(consumer, int(self._look_seconds * 1000)):
                self.following, waiting = True, {}
                continue
            before, waiting = waiting, await self._elsewhere(consumer)
            # Seen twice: what arrived during the first look was merely young.
            if waiting and before == waiting and waiting != self._unreachable:
                self._unreachable = waiting
                for partition, end in waiting.items():
                    if end < self._positions[partition]:
                        # The topic was made anew; reading begins where it begins for whoever starts.
                        del self._positions[partition]
                raise _Stuck(f"{len(waiting)} partitions end elsewhere")

    async def _elsewhere(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """The ends of the partitions that end elsewhere than where reading stands; none when Kafka does not tell."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                ends = await consumer.end_offsets(list(self._positions))
        except (KafkaError, TimeoutError):
            # The consumer waits for Kafka by itself; whoever asks about our health is told.
            self.following = False
            return {}
        self.following = True
        return {partition: end for partition, end in ends.items() if end != self._positions[partition]}

    async def _open_again(self) -> AIOKafkaConsumer:
        pause = FIRST_PAUSE
        while True:
            try:
                async with asyncio.timeout(10 * ASK_SECONDS):
                    return await self._open()
            except (KafkaError, BusDown, TimeoutError):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await _close(consumer)


class _Stuck(Exception):
    """Kafka has records that the consumer does not bring."""


async def _close(consumer: AIOKafkaConsumer) -> None:
    # aiokafka's stop may wait for brokers that are gone.
    with suppress(KafkaError, TimeoutError):
        await asyncio.wait_for(consumer.stop(), ASK_SECONDS)
