"""How does a message get onto Kafka, and when is it surely there? Acknowledged by all in-sync replicas, or not sent.

No idempotence and no transactions: aiokafka's hang or stay broken when brokers go (aio-libs/aiokafka#1101, #1017),
and the receivers' inboxes absorb repeats.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from shared.bus.envelope import Envelope

STOP_SECONDS: Final = 5.0
MAX_REQUEST_BYTES: Final = 2 * 1024 * 1024
"""Room for a dead letter: the largest record there may be, and what is said about it."""


class BusDown(Exception):
    """Kafka did not acknowledge in time; the message may or may not be there."""


class _Partitioner:
    """A key's partition by CRC-32, in C, where the default's murmur2 in Python costs more than the rest of a send."""

    def __init__(self) -> None:
        self._turn = itertools.count()

    def __call__(self, key: bytes | None, partitions: Sequence[int], _available: Sequence[int]) -> int:
        number = next(self._turn) if key is None else zlib.crc32(key)
        return partitions[number % len(partitions)]


class Producer:
    """Puts messages on Kafka; one for each process and service.

    Args:
        bootstrap: ``host:port`` of brokers, separated by commas.
        prefix: leads every topic's name.
        client_id: shown in the broker's log.
        timeout: seconds a send may take in all.
    """

    def __init__(self, bootstrap: str, *, prefix: str = "", client_id: str = "nest", timeout: float = 10.0) -> None:
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._client_id = client_id
        self._timeout = timeout
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaError: Kafka can't be reached.
        """
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            acks="all",
            enable_idempotence=False,
            linger_ms=0,
            max_request_size=MAX_REQUEST_BYTES,
            request_timeout_ms=int(self._timeout * 1000),
            partitioner=_Partitioner(),
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def stop(self) -> None:
        """Send what is under way, within a bound, and disconnect."""
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        with suppress(TimeoutError, KafkaError):
            await asyncio.wait_for(producer.stop(), STOP_SECONDS)

    async def send(self, *messages: Envelope) -> None:
        """Put messages on their topics, in order; returns when Kafka has acknowledged all of them.

        Raises:
            BusDown: not all were acknowledged within the time-out.
        """
        try:
            async with asyncio.timeout(self._timeout):
                sent = [await self._enqueue(message) for message in messages]
                await _acknowledged(sent)
        except (KafkaError, TimeoutError) as failure:
            raise BusDown(f"{type(failure).__name__}: {failure}") from failure

    async def send_record(
        self,
        topic: str,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
        *,
        key: bytes | None = None,
        partition: int | None = None,
    ) -> None:
        """Put a record as it is on a topic (without prefix); returns when Kafka has acknowledged it.

        Raises:
            BusDown: not acknowledged within the time-out.
        """
        try:
            async with asyncio.timeout(self._timeout):
                if key is None and value is None:
                    sent = await self._enqueue_nothing(topic, headers, partition)
                else:
                    sent = await self._connected().send(self._prefix + topic, value, key, partition, headers=headers)
                await asyncio.shield(sent)
        except (KafkaError, TimeoutError) as failure:
            raise BusDown(f"{type(failure).__name__}: {failure}") from failure

    async def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic, sorted.

        Raises:
            BusDown: Kafka does not tell.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return sorted(await self._connected().partitions_for(self._prefix + topic))
        except (KafkaError, TimeoutError) as failure:
            raise BusDown(f"{type(failure).__name__}: {failure}") from failure

    async def _enqueue(self, message: Envelope) -> asyncio.Future[object]:
        sent: asyncio.Future[object] = await self._connected().send(
            self._prefix + message.topic,
            # No JSON is empty: what has no body is a tombstone, which Kafka knows by its missing value.
            message.body or None,
            # What has no subject is ordered by its own id: copies of it meet in one lane and never run side by side.
            (message.key or message.id).encode(),
            headers=message.headers(),
        )
        return sent

    async def _enqueue_nothing(
        self, topic: str, headers: Sequence[tuple[str, bytes]], partition: int | None
    ) -> asyncio.Future[object]:
        """A record without key and value, which Kafka takes, and aiokafka only as a batch of its own."""
        producer = self._connected()
        if partition is None:
            partition = min(await producer.partitions_for(self._prefix + topic))
        batch = producer.create_batch()
        batch.append(key=None, value=None, timestamp=None, headers=list(headers))
        batch.close()
        sent: asyncio.Future[object] = await producer.send_batch(batch, self._prefix + topic, partition=partition)
        return sent

    def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise BusDown("the producer is stopped")
        return self._producer


async def _acknowledged(sent: Sequence[asyncio.Future[object]]) -> None:
    # Shielded: a time-out of ours must not cancel futures that the client library is going to resolve.
    if len(sent) == 1:
        await asyncio.shield(sent[0])
    else:
        await asyncio.gather(*map(asyncio.shield, sent))
