"""Delivery of one record: attempts with retries until its outcome is published, or a dead letter is written.

Possible ends of a record:

- done or refused: the outcome is committed, the reply and the messages are sent,
- dead-lettered: written to ``<topic>.dead`` as ``undecodable``, ``too_old``, or ``failing`` after five attempts,
- dropped: a query after its deadline, or an event that this service does not handle.

While MongoDB or Kafka is unavailable, the message waits; outages do not consume attempts.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Final

from shared.bus.envelope import Envelope, Record, Undecodable, unix_milliseconds
from shared.bus.handling import EventNotHandled, Handling, TooOld, refused
from shared.bus.inbox import Outcome, WriteConflict
from shared.bus.producer import BusDown, Producer
from shared.bus.topics import dead_letter_topic
from shared.dead_letters.records import dead_letter_record, is_replay_for_other_group
from shared.errors import Unavailable, Unknown
from shared.fault_points import armed, fault_point
from shared.messages import Message, Query
from shared.mongo import dependency_down
from shared.sealing import Sealer
from shared.telemetry import DEAD_LETTERS, MESSAGE_SECONDS, MESSAGES_HANDLED, REPLIES_LOST, RETRIES, Tracing, log

MAX_ATTEMPTS: Final = 5
FIRST_PAUSE: Final = 0.2
"""Seconds before the second attempt, on average."""
PAUSE_GROWTH: Final = 3.0
OUTAGE_PAUSE: Final = 1.0
"""Maximum seconds between two attempts during an outage."""
NOTICE_MILLISECONDS: Final = 700
"""How long before its deadline a caller is told about an outage; leaves time for the reply to arrive."""
REPLY_SECONDS: Final = 5.0
"""Timeout of sending a reply."""
TRACE_CHARACTERS: Final = 8_000
REPLIES: Final = "gateway.replies"


class Stopping(Exception):
    """The process is stopping; the record is unfinished and will be delivered again."""


class Delivery:
    """Delivers the records of one service; its consumer group is written into dead letters."""

    def __init__(self, handling: Handling, producer: Producer, *, group: str, sealer: Sealer, tracing: Tracing) -> None:
        self._handling = handling
        self._producer = producer
        self._group = group
        self._sealer = sealer
        self._tracing = tracing
        self._service = handling.service
        self._stopping = asyncio.Event()
        self._replies: set[asyncio.Task[None]] = set()
        self._outage = False
        """True if the last attempt of any message failed because of an outage."""

    def stop(self) -> None:
        """Make no further attempts; a message that waits for one raises Stopping."""
        self._stopping.set()

    def skips(self, record: Record, topic: str) -> bool:
        """Return True if a record needs no delivery: another group's replay, or an event that is not handled."""
        return is_replay_for_other_group(record.headers, self._group) or self._handling.skips(record, topic)

    async def deliver(self, record: Record, topic: str) -> bool:
        """Deliver any Kafka record of a topic, named without prefix; return True if it was dead-lettered.

        Raises:
            Stopping: the process is stopping and the record is unfinished.
        """
        started = time.monotonic()
        try:
            envelope = Envelope.of(record, topic)
            message = self._handling.decode(envelope)
        except EventNotHandled:
            return False
        except Undecodable as undecodable:
            await self._dead_letter(record, topic, "undecodable", str(undecodable))
            return True
        if isinstance(message, Query) and envelope.deadline and envelope.deadline < unix_milliseconds():
            MESSAGES_HANDLED.labels(self._service, envelope.wire, "dropped").inc()
            return False
        with self._tracing.span(envelope.wire, envelope.trace) as envelope.trace:
            dead_lettered = await self._finish(record, envelope, message)
        MESSAGE_SECONDS.labels(self._service, envelope.wire).observe(time.monotonic() - started)
        return dead_lettered

    async def _finish(self, record: Record, envelope: Envelope, message: Message) -> bool:
        """Bring a message to its outcome and send it; return True if it was dead-lettered instead."""
        try:
            outcome = await self._outcome(envelope, message)
        except TooOld as too_old:
            await self._dead_letter(record, envelope.topic, "too_old", str(too_old))
            return True
        except _GivenUp as given_up:
            failure = given_up.__cause__
            await self._dead_letter(record, envelope.topic, "failing", type(failure).__name__, failure)
            self._send_reply_soon(envelope, refused(Unknown()))
            return True
        await self._send_outcome(envelope, outcome, query=isinstance(message, Query))
        MESSAGES_HANDLED.labels(self._service, envelope.wire, outcome.kind).inc()
        return False

    async def _outcome(self, envelope: Envelope, message: Message) -> Outcome:
        """Attempt a message until it has an outcome.

        Raises:
            TooOld: it is older than the inbox.
            _GivenUp: ``MAX_ATTEMPTS`` attempts failed.
            Stopping: the process is stopping.
        """
        notice = self._schedule_outage_notice(envelope)
        attempts = 0
        try:
            while True:
                try:
                    outcome = await self._handling.handle(envelope, message)
                except TooOld:
                    raise
                except Exception as failure:  # any exception of a handler ends up here
                    if dependency_down(failure) or isinstance(failure, BusDown | WriteConflict):
                        self._outage = True
                        log.warning(
                            "dependency unavailable", type=envelope.wire, id=envelope.id, error=type(failure).__name__
                        )
                        if isinstance(message, Query) and _notice_sent(envelope):
                            return refused(Unavailable())
                        pause = OUTAGE_PAUSE * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter
                    else:
                        attempts += 1
                        log.exception("handler failed", type=envelope.wire, id=envelope.id, attempts=attempts)
                        if isinstance(message, Query):
                            return refused(Unknown())
                        if attempts == MAX_ATTEMPTS:
                            raise _GivenUp from failure
                        pause = FIRST_PAUSE * PAUSE_GROWTH ** (attempts - 1) * random.uniform(0.5, 1.5)  # noqa: S311
                    RETRIES.labels(self._service, envelope.wire).inc()
                    await self._pause(pause)
                else:
                    self._outage = False
                    return outcome
        finally:
            if notice is not None:
                notice.cancel()

    def _schedule_outage_notice(self, envelope: Envelope) -> asyncio.TimerHandle | None:
        """Schedule an ``unavailable`` reply shortly before the caller's deadline, sent only during an outage.

        Without it the caller would only see a timeout. The message itself stays and is handled after the outage.
        """
        if envelope.reply_to is None or not envelope.deadline:
            return None

        def notify() -> None:
            if self._outage:
                self._send_reply_soon(envelope, refused(Unavailable()))

        remaining = envelope.deadline - NOTICE_MILLISECONDS - unix_milliseconds()
        return asyncio.get_running_loop().call_later(max(remaining, 0) / 1000, notify)

    async def _send_outcome(self, envelope: Envelope, outcome: Outcome, *, query: bool) -> None:
        """Send the reply and the messages; return when Kafka has acknowledged the messages.

        A query has no inbox row to send its audit entry again from, so the entry must be on Kafka before the reply.
        """
        if outcome.replies and not query:
            self._send_reply_soon(envelope, outcome)
        if outcome.messages:
            if armed("V3"):
                half = outcome.messages[: max(1, len(outcome.messages) // 2)]
                await self._until_bus_is_up(lambda: self._producer.send(*half))
                fault_point("V3")
            await self._until_bus_is_up(lambda: self._producer.send(*outcome.messages))
        if query:
            self._send_reply_soon(envelope, outcome)
        if armed("V4"):
            await self.replies_sent()
            fault_point("V4")

    async def _until_bus_is_up(self, send: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await send()
            except BusDown as down:
                log.warning("bus down", error=str(down))
                await self._pause(OUTAGE_PAUSE)

    def _send_reply_soon(self, envelope: Envelope, outcome: Outcome) -> None:
        """Send a reply in the background: a failing reply topic must not delay the next message of the key."""
        if envelope.reply_to is None:
            return
        task = asyncio.create_task(self._send_reply(envelope, outcome))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def replies_sent(self) -> None:
        """Wait until every reply is sent or given up."""
        while self._replies:
            await asyncio.wait(self._replies)

    async def _send_reply(self, envelope: Envelope, outcome: Outcome) -> None:
        """Send a reply, or give up after a timeout: by then the caller has timed out too and may repeat its request."""
        headers = [("id", envelope.reply_id.encode()), ("kind", outcome.kind.encode())]
        if outcome.replayed:
            headers.append(("replayed", b"1"))
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await self._producer.send_record(REPLIES, outcome.body or b"", headers, partition=envelope.reply_to)
        except (BusDown, TimeoutError, AssertionError) as failure:  # aiokafka asserts that the partition exists
            REPLIES_LOST.labels(self._service).inc()
            log.warning("reply lost", id=envelope.id, type=envelope.wire, error=str(failure))

    async def _dead_letter(
        self, record: Record, topic: str, reason: str, detail: str, failure: BaseException | None = None
    ) -> None:
        """Write a dead letter; return when Kafka has acknowledged it, so that the record's offset may be committed."""
        # Stack frames only: an exception's message may quote secrets.
        trace = "".join(traceback.format_tb(failure.__traceback__))[-TRACE_CHARACTERS:] if failure is not None else ""
        letter = dead_letter_record(
            record,
            topic,
            sealer=self._sealer,
            reason=reason,
            detail=detail,
            trace=trace,
            attempts=MAX_ATTEMPTS if failure is not None else 0,
            group=self._group,
            at=unix_milliseconds(),
        )
        DEAD_LETTERS.labels(self._service, reason).inc()
        log.error(
            "dead letter", topic=topic, partition=record.partition, offset=record.offset, reason=reason, detail=detail
        )
        await self._until_bus_is_up(
            lambda: self._producer.send_record(dead_letter_topic(topic), letter.value, letter.headers, key=letter.key)
        )

    async def _pause(self, seconds: float) -> None:
        """Sleep between two attempts; raise Stopping if the process is stopping."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise Stopping


class _GivenUp(Exception):
    """The last attempt failed; ``__cause__`` is its exception."""


def _notice_sent(envelope: Envelope) -> bool:
    """Return True if the outage notice was due, so that the caller no longer waits."""
    return bool(envelope.deadline) and unix_milliseconds() > envelope.deadline - NOTICE_MILLISECONDS
