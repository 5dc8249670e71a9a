"""RPC client: calls over Kafka, each matched to its reply by a correlation ID.

Every instance reads one partition of ``gateway.replies``, which it chooses at random when it starts. Instances with the
same partition receive each other's replies and ignore them: a correlation ID is 128 random bits.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge

from services.gateway.admission import CallLimit
from services.gateway.errors import ReplyTimeout, TooManyRequests
from shared.bus.envelope import HANDLING_TIME, Envelope, Record
from shared.bus.inbox import DONE
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import BusDown, Producer
from shared.bus.record_macs import RecordMacs
from shared.bus.topic_reader import TopicReader
from shared.bus.topics import SERVICES
from shared.errors import Unavailable
from shared.fault_points import fault_point
from shared.ids import new_message_id
from shared.messages import MESSAGES
from shared.sealing import Sealer
from shared.telemetry import log
from shared.tracing import active_span

TOPIC: Final = "gateway.replies"
RECEIVER: Final = "gateway"
"""Service for which replies with secrets are sealed."""
UNCLAIMED: Final = Counter(
    "nest_gateway_replies_unclaimed", "Replies without a waiting call: late ones, and those of other instances."
)
WAITING: Final = Gauge("nest_gateway_calls_waiting", "Calls that wait for their reply.")


@dataclass(slots=True)
class RpcReply:
    """A service's reply.

    Attributes:
        kind: ``done``, or the kind of the refusal.
        body: JSON; empty if the command has no result.
        replayed: the message was handled before, and this is the stored reply.
    """

    kind: str
    body: bytes
    replayed: bool


class RpcClient:
    """Sends messages and waits for their replies.

    Args:
        producer: sends to Kafka, with a timeout shorter than ``seconds``.
        sealer: unseals replies with secrets.
        macs: checks the MACs of replies.
        kafka: the connection to Kafka.
        prefix: of every topic name.
        seconds: timeout of a call, sending included.
        limit: calls that may wait at the same time. Each service has a lower limit of its own while it is overloaded.
    """

    def __init__(
        self,
        producer: Producer,
        sealer: Sealer,
        macs: RecordMacs,
        *,
        kafka: KafkaConnection,
        prefix: str,
        seconds: float,
        limit: int,
    ) -> None:
        self._producer = producer
        self._sealer = sealer
        self._macs = macs
        self._kafka = kafka
        self._prefix = prefix
        self._seconds = seconds
        self._limit = limit
        self._limits = {f"{service}.commands": CallLimit(service, limit) for service in SERVICES}
        self._waiting: dict[str, asyncio.Future[Record | None]] = {}
        """Calls by correlation ID; the result None is a timeout."""
        self._partition = -1
        self._reader: TopicReader | None = None
        self.unclaimed = 0
        """Replies that matched no waiting call."""
        WAITING.set_function(self._waiting.__len__)

    async def start(self) -> None:
        """Choose a partition and read it from its end.

        Raises:
            BusDown: Kafka is not reachable, or the topic does not exist.
        """
        try:
            partitions = await self._producer.partitions(TOPIC)
        except BusDown as down:
            raise BusDown(f"cannot read the partitions of topic {self._prefix}{TOPIC}: {down}") from down
        self._partition = partitions[zlib.crc32(new_message_id().encode()) % len(partitions)]
        self._reader = TopicReader(
            self._kafka,
            macs=self._macs,
            partitions=[self._partition],
            from_end=True,
            client_id="nest-gateway-replies",
        )
        await self._reader.follow({self._prefix + TOPIC: self._receive})

    async def stop(self) -> None:
        """Stop reading, and time out the calls that still wait."""
        if self._reader is not None:
            await self._reader.stop()
        for waiting in self._waiting.values():
            _time_out(waiting)

    @property
    def receiving(self) -> bool:
        """Whether replies are received as they are published; False while Kafka is unavailable."""
        return self._reader is not None and self._reader.following

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a reply."""
        return len(self._waiting)

    def overload(self, topic: str, *, arriving: bool = False) -> TooManyRequests | None:
        """Return the refusal of a call, for use before any work is done for it; None if it may wait.

        It is refused if the limit of waiting calls, or that of the service, is reached.

        Args:
            topic: of its message, without prefix.
            arriving: True if the request has just been read and is handled in the next iteration of the event loop.
        """
        limit = self._limits[topic]
        if len(self._waiting) < self._limit and not limit.refuses():
            if arriving:
                limit.arrive()
            return None
        return TooManyRequests(retry_after=1)

    async def call(self, envelope: Envelope) -> RpcReply:
        """Send a message and wait for its reply.

        Concurrent calls with the same message ID have an idempotency key. Each gets a reply, because each has its own
        correlation ID.

        Raises:
            TooManyRequests: the limit of waiting calls is reached; nothing was sent.
            Unavailable: Kafka did not acknowledge the message in time, but may have stored it.
            ReplyTimeout: no reply arrived in time; the message may still take effect.
        """
        # Again: since the request's head arrived others may have begun to wait.
        if (refusal := self.overload(envelope.topic)) is not None:
            raise refusal
        loop = asyncio.get_running_loop()
        envelope.reply_to = self._partition
        # The message ID of a call without an idempotency key is new.
        envelope.reply_id = correlation_id = new_message_id() if envelope.fingerprint else envelope.id
        envelope.deadline = envelope.time + int(self._seconds * 1000)
        waiting: asyncio.Future[Record | None] = loop.create_future()
        self._waiting[correlation_id] = waiting
        timer = loop.call_later(self._seconds, _time_out, waiting)
        began = time.monotonic()
        limit = self._limits[envelope.topic]
        limit.begin()
        queued, record = None, None
        try:
            fault_point("G1")
            await self._producer.send(envelope)
            fault_point("G2")
            record = await waiting
            queued = _queued_seconds(time.monotonic() - began, record)
        except BusDown as down:
            log.warning("bus down", type=envelope.wire, id=envelope.id, error=str(down))
            raise Unavailable from down
        finally:
            timer.cancel()
            del self._waiting[correlation_id]
            limit.end(queued, replied=record is not None)
        if record is None:
            log.warning("reply timeout", type=envelope.wire, id=envelope.id, correlation_id=correlation_id)
            raise ReplyTimeout
        headers = dict(record.headers)
        if (span := active_span()) is not None:
            span.follow(headers.get("traceparent", b"").decode("ascii", "replace"))
        reply = RpcReply(headers["kind"].decode(), record.value or b"", "replayed" in headers)
        if reply.kind == DONE and reply.body and MESSAGES[envelope.wire].reply_sealed:
            reply.body = self._sealer.unseal(RECEIVER, reply.body.decode())
        return reply

    def _receive(self, record: Record) -> None:
        for name, value in record.headers:
            if name == "id":
                waiting = self._waiting.get(value.decode("ascii", "replace"))
                if waiting is not None and not waiting.done():
                    waiting.set_result(record)
                    return
        self.unclaimed += 1
        UNCLAIMED.inc()


def _queued_seconds(elapsed: float, record: Record | None) -> float | None:
    """Queueing delay of a call: its duration without the handling; None if the reply does not state that."""
    if record is None:
        return elapsed
    for name, value in record.headers:
        if name == HANDLING_TIME:
            return max(0.0, elapsed - int(value) / 1000)
    return None


def _time_out(waiting: asyncio.Future[Record | None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
