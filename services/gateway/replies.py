"""How does a call over HTTP get its answer? Its message goes onto Kafka, and the reply with its id resolves a future.

Every instance reads one partition of ``gateway.replies``, the one its random id hashes to. Two instances that share one
see each other's replies and pass them over: a reply's id is 128 random bits.
"""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge

from services.gateway.errors import ReplyTimeout, TooManyRequests
from shared.bus.envelope import Envelope, Record
from shared.bus.inbox import DONE
from shared.bus.producer import BusDown, Producer
from shared.bus.topic_reader import TopicReader
from shared.errors import Unavailable
from shared.fault_points import fault_point
from shared.ids import new_message_id
from shared.messages import MESSAGES
from shared.sealing import Sealer
from shared.telemetry import log

TOPIC: Final = "gateway.replies"
RECEIVER: Final = "gateway"
"""What replies with secrets in them are sealed for."""
UNCLAIMED: Final = Counter(
    "nest_gateway_replies_unclaimed", "Replies for nobody here: late ones, and those of an instance that shares ours."
)
WAITING: Final = Gauge("nest_gateway_calls_waiting", "Calls that wait for their reply.")


@dataclass(slots=True)
class Reply:
    """An answer from the bus.

    Attributes:
        kind: ``done``, or the kind of the refusal.
        body: JSON; empty where the method has no result.
        replayed: it was done before, and this is what was kept.
    """

    kind: str
    body: bytes
    replayed: bool


class Replies:
    """Asks over the bus and awaits what comes back.

    Args:
        producer: puts messages on Kafka, with a time-out shorter than ``seconds``.
        sealer: opens sealed replies.
        bootstrap: ``host:port`` of brokers, separated by commas.
        prefix: leads every topic's name.
        seconds: how long a call waits for its answer, sending included.
        limit: how many calls may wait at once.
    """

    def __init__(
        self, producer: Producer, sealer: Sealer, *, bootstrap: str, prefix: str, seconds: float, limit: int
    ) -> None:
        self._producer = producer
        self._sealer = sealer
        self._bootstrap = bootstrap
        self._prefix = prefix
        self._seconds = seconds
        self._limit = limit
        self._waiting: dict[str, asyncio.Future[Record | None]] = {}
        self._partition = -1
        self._tail: TopicReader | None = None
        self.unclaimed = 0
        """How many replies came for nobody who waits here."""
        WAITING.set_function(self._waiting.__len__)

    async def start(self) -> None:
        """Choose a partition and listen; what is replied from now on is heard.

        Raises:
            BusDown: Kafka can't be reached, or the topic is not there.
        """
        try:
            partitions = await self._producer.partitions(TOPIC)
        except BusDown as down:
            raise BusDown(f"the topic {self._prefix}{TOPIC} is not known: {down}") from down
        self._partition = partitions[zlib.crc32(new_message_id().encode()) % len(partitions)]
        self._tail = TopicReader(
            self._bootstrap,
            self._prefix + TOPIC,
            self._take,
            partitions=[self._partition],
            from_end=True,
            client_id="nest-gateway-replies",
        )
        await self._tail.start()

    async def stop(self) -> None:
        """Listen no more; whoever still waits is told that no answer came."""
        if self._tail is not None:
            await self._tail.stop()
        for waiting in self._waiting.values():
            _give_up(waiting)

    @property
    def listening(self) -> bool:
        """Whether replies are heard as they come."""
        return self._tail is not None and self._tail.following

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiting)

    async def ask(self, envelope: Envelope) -> Reply:
        """Put a message on the bus and await its reply.

        Calls with one message id each get their own answer: what they wait under is theirs alone.

        Raises:
            TooManyRequests: too many calls wait already; nothing was sent.
            Unavailable: Kafka did not take the message in time; whether it is there is not known.
            ReplyTimeout: no reply came in time; whether it took effect is not known.
        """
        if len(self._waiting) >= self._limit:
            raise TooManyRequests(retry_after=1)
        loop = asyncio.get_running_loop()
        reply_id = new_message_id()
        envelope.reply_to = self._partition
        envelope.reply_id = reply_id
        envelope.deadline = envelope.time + int(self._seconds * 1000)
        waiting: asyncio.Future[Record | None] = loop.create_future()
        self._waiting[reply_id] = waiting
        timer = loop.call_later(self._seconds, _give_up, waiting)
        try:
            fault_point("G1")
            await self._producer.send(envelope)
            fault_point("G2")
            record = await waiting
        except BusDown as down:
            log.warning("bus down", type=envelope.wire, id=envelope.id, error=str(down))
            raise Unavailable from down
        finally:
            timer.cancel()
            del self._waiting[reply_id]
        if record is None:
            log.warning("no reply in time", type=envelope.wire, id=envelope.id, reply=reply_id)
            raise ReplyTimeout
        return self._read(record, envelope.wire)

    def _read(self, record: Record, wire: str) -> Reply:
        headers = dict(record.headers)
        reply = Reply(headers["kind"].decode(), record.value or b"", "replayed" in headers)
        if reply.kind == DONE and reply.body and MESSAGES[wire].reply_sealed:
            reply.body = self._sealer.unseal(RECEIVER, reply.body.decode())
        return reply

    def _take(self, record: Record) -> None:
        for name, value in record.headers:
            if name == "id":
                waiting = self._waiting.get(value.decode("ascii", "replace"))
                if waiting is not None and not waiting.done():
                    waiting.set_result(record)
                    return
        self.unclaimed += 1
        UNCLAIMED.inc()


def _give_up(waiting: asyncio.Future[Record | None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
