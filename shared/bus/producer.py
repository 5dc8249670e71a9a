"""Kafka producer: a message is either acknowledged by all in-sync replicas, or sending it fails.

It uses neither idempotence nor transactions: those of aiokafka hang or stay broken after a broker failure
(aio-libs/aiokafka#1101, #1017). A message may therefore be written twice; the receivers' inboxes absorb that.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from shared.bus.aiokafka_patch import patch_aiokafka
from shared.bus.envelope import Envelope
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.record_macs import RecordMacs
from shared.messages import is_query
from shared.otel_settings import TraceExport
from shared.tracing import Tracing, record_sending

STOP_SECONDS: Final = 5.0
PARTITIONS_SECONDS: Final = 0.1
"""Pause before a broker is asked again for the number of partitions."""
LOG_APPEND_TIME: Final = 1
"""Type of a record's timestamp that Kafka has set, in Kafka's protocol."""
MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
"""Large enough for a dead letter: the largest possible record and its headers."""
MAX_BATCH_BYTES: Final = 512 * 1024
"""Records of one partition that one request may carry: half of what a topic accepts. Further ones wait until Kafka has
acknowledged these. aiokafka's default of 16 KiB is that of twelve replies with tokens."""


METADATA_SECONDS: Final = 30.0
"""Age at which the numbers of partitions are read again; aiokafka's default is five minutes."""


class BusDown(Exception):
    """Kafka did not acknowledge in time; the message may have been written or not."""


class _Partitioner:
    """Partitioner by CRC-32, in C. aiokafka's default, murmur2 in Python, costs more than the rest of sending.

    Records without a key go to one partition for a millisecond, then to another one. So those that are sent at the same
    time share a batch, of which each one costs the producer, the broker and the reader.
    """

    def __call__(self, key: bytes | None, partitions: Sequence[int], _available: Sequence[int]) -> int:
        if key is None:
            key = b"%d" % int(asyncio.get_running_loop().time() * 1000)
        return partitions[zlib.crc32(key) % len(partitions)]


class _Sends:
    """Counts the sends that are on their way; ``ended`` is set while there are none."""

    def __init__(self) -> None:
        self._count = 0
        self.ended = asyncio.Event()
        self.ended.set()

    def __enter__(self) -> None:
        self._count += 1
        self.ended.clear()

    def __exit__(self, *raised: object) -> None:
        self._count -= 1
        if not self._count:
            self.ended.set()


class Producer:
    """The Kafka producer of one service in one process. Every record that it sends has a MAC.

    Args:
        kafka: the connection to Kafka.
        macs: computes the MACs.
        prefix: prefix of every topic name.
        client_id: name in Kafka's log.
        timeout: seconds that one send may take.
        tracing: records the sending of messages; by default nothing is recorded.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        *,
        macs: RecordMacs,
        prefix: str = "",
        client_id: str = "nest",
        timeout: float = 10.0,
        tracing: Tracing | None = None,
    ) -> None:
        patch_aiokafka()
        self._kafka = kafka
        self._macs = macs
        self._prefix = prefix
        self._client_id = client_id
        self._timeout = timeout
        self._tracing = tracing or Tracing(client_id, TraceExport())
        self._producer: AIOKafkaProducer | None = None
        self._held: frozenset[str] = frozenset()
        self._refusing = False
        self._released = asyncio.Event()
        self._sends = _Sends()

    async def start(self) -> None:
        """Connect to Kafka; raise KafkaError if it can't be reached."""
        producer = AIOKafkaProducer(
            **self._kafka.options,
            client_id=self._client_id,
            acks="all",
            enable_idempotence=False,
            linger_ms=0,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            request_timeout_ms=int(self._timeout * 1000),
            metadata_max_age_ms=int(METADATA_SECONDS * 1000),
            partitioner=_Partitioner(),
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def stop(self) -> None:
        """Send what is buffered, for at most ``STOP_SECONDS``, and disconnect."""
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        with suppress(TimeoutError, KafkaError):
            await asyncio.wait_for(producer.stop(), STOP_SECONDS)

    def hold(self, topics: Iterable[str], *, refuse: bool) -> None:
        """Send nothing more to these topics until ``release``; replaces an earlier hold.

        Args:
            topics: topics without prefix.
            refuse: sends raise BusDown at once. Otherwise they wait, and raise it after their timeout.
        """
        self._held = frozenset(topics)
        self._refusing = refuse
        self._released.clear()

    async def settle(self) -> None:
        """Wait until no record is on its way to Kafka, those whose senders have timed out included.

        Raises:
            BusDown: the producer is stopped.
        """
        await self._sends.ended.wait()
        await self._connected().flush()

    async def release(self, partitions: Mapping[str, int]) -> None:
        """Read the numbers of partitions from Kafka, then end the hold.

        Args:
            partitions: the least number of partitions of topics without prefix. A broker that does not know them yet is
                asked again.

        Raises:
            BusDown: the producer is stopped.
        """
        while True:
            if not await self._connected().client.force_metadata_update():
                await asyncio.sleep(PARTITIONS_SECONDS)
                continue
            known = {topic: len(await self.partitions(topic)) for topic in partitions}
            if all(known[topic] >= number for topic, number in partitions.items()):
                break
            await asyncio.sleep(PARTITIONS_SECONDS)
        self._held = frozenset()
        self._released.set()

    async def _until_released(self, topics: Iterable[str]) -> None:
        """Wait until none of these topics is held; raise BusDown if sends to them are refused."""
        while not self._held.isdisjoint(topics):
            if self._refusing:
                raise BusDown("nothing is sent while topics get more partitions")
            await self._released.wait()

    async def send(self, *messages: Envelope) -> list[tuple[TopicPartition, int]]:
        """Send messages to their topics, in order; return their partitions and offsets once Kafka has acknowledged all.

        Raises:
            BusDown: not all were acknowledged within the timeout.
        """
        with self._tracing.sending(
            messages, prefix=self._prefix, client=self._client_id, server=self._kafka.bootstrap
        ) as sending:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._until_released([message.topic for message in messages])
                    with self._sends:
                        sent = [
                            await self._enqueue(message, sending.trace(index, message))
                            for index, message in enumerate(messages)
                        ]
                        acknowledged = await _acknowledged(sent)
            except (KafkaError, TimeoutError) as failure:
                raise BusDown(f"{type(failure).__name__}: {failure}") from failure
            for index, each in enumerate(acknowledged):
                sending.acknowledged(index, each.partition, each.offset)
        return [(each.topic_partition, each.offset) for each in acknowledged]

    async def send_record(
        self,
        topic: str,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        *,
        key: bytes | None = None,
        partition: int | None = None,
        timeout: float | None = None,
    ) -> int | None:
        """Send a raw record to a topic, named without prefix; return when Kafka has acknowledged it.

        Its MAC is put in front of the headers. By default the key decides the partition, and the timeout is that of the
        producer.

        Returns:
            The Unix time at which Kafka appended it, milliseconds; None if the topic keeps the sender's time.

        Raises:
            BusDown: it was not acknowledged within the timeout.
        """
        with record_sending(
            self._prefix + topic, headers, client=self._client_id, server=self._kafka.bootstrap
        ) as span:
            try:
                async with asyncio.timeout(timeout or self._timeout):
                    await self._until_released((topic,))
                    with self._sends:
                        signed = self._macs.signed(topic, key, value, span.traced(headers))
                        if key is None and value is None:
                            sent = await self._enqueue_empty(topic, signed, partition)
                        else:
                            sent = await self._connected().send(
                                self._prefix + topic, value, key, partition, headers=signed
                            )
                        (stored,) = await _acknowledged([sent])
            except (KafkaError, TimeoutError) as failure:
                raise BusDown(f"{type(failure).__name__}: {failure}") from failure
            span.acknowledged(stored.partition, stored.offset)
        return int(stored.timestamp) if stored.timestamp_type == LOG_APPEND_TIME else None

    async def partitions(self, topic: str) -> list[int]:
        """Return the partitions of a topic, sorted.

        Raises:
            BusDown: Kafka did not answer within the timeout.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return sorted(await self._connected().partitions_for(self._prefix + topic))
        except (KafkaError, TimeoutError) as failure:
            raise BusDown(f"{type(failure).__name__}: {failure}") from failure

    async def _enqueue(self, message: Envelope, trace: str) -> asyncio.Future[Any]:
        # JSON is never empty, so an empty body is that of a tombstone, which Kafka recognizes by a null value.
        value = message.body or None
        key = _key_of(message)
        headers = self._macs.signed(message.topic, key, value, message.headers(trace))
        sent: asyncio.Future[Any] = await self._connected().send(
            self._prefix + message.topic, value, key, headers=headers
        )
        return sent

    async def _enqueue_empty(
        self, topic: str, headers: Sequence[tuple[str, bytes]], partition: int | None
    ) -> asyncio.Future[Any]:
        """Enqueue a record without key and value, which aiokafka accepts only as a batch of its own."""
        producer = self._connected()
        if partition is None:
            partition = min(await producer.partitions_for(self._prefix + topic))
        batch = producer.create_batch()
        batch.append(key=None, value=None, timestamp=None, headers=list(headers))
        batch.close()
        # Shielded, because it is the future of the batch, for which ``settle`` waits.
        return asyncio.shield(await producer.send_batch(batch, self._prefix + topic, partition=partition))

    def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise BusDown("the producer is stopped")
        return self._producer


async def _acknowledged(sent: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """Wait until Kafka has acknowledged all records; return what aiokafka says about each.

    A timeout cancels the future that is waited for, and aiokafka passes over futures that are done: its batch goes on.
    """
    try:
        return [await each for each in sent]
    except BaseException:
        for each in sent:
            each.add_done_callback(_take_failure)
        raise


def _take_failure(sent: asyncio.Future[Any]) -> None:
    """Take the failure of a record about which nobody asks any more; asyncio would log it as not retrieved."""
    if not sent.cancelled():
        sent.exception()


def _key_of(message: Envelope) -> bytes | None:
    """Return the key of a message's record; queries have none, since two deliveries may run concurrently."""
    if is_query(message.wire):
        return None
    # Without an ordering key it is the message ID, so that two deliveries never do.
    return (message.key or message.id).encode()
