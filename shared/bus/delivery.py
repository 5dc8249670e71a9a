"""Delivery of one record: attempts with retries until its outcome is published, or a dead letter is written.

Possible ends of a record:

- done or refused: the outcome is committed, the reply and the messages are sent,
- dead-lettered: written to ``<topic>.dead`` as ``unauthenticated``, ``undecodable``, ``too_old``, or ``failing`` after
  five attempts,
- dropped: a query after its deadline, or an event that this service does not handle.

A message of an unknown type is postponed for hours, until an instance of a newer release handles it, and is then
dead-lettered as ``undecodable``.

While MongoDB or Kafka is unavailable or slow, the message waits; that does not consume attempts. A query that is too
slow is refused instead.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from shared.bus.envelope import HANDLING_TIME, Envelope, Record, Undecodable, unix_milliseconds
from shared.bus.handling import EventNotHandled, Handling, TooOld, UnknownType, refused
from shared.bus.inbox import Outcome, WriteConflict
from shared.bus.message_span import MessageSpan, MessageSpans
from shared.bus.outage import RETRY_AFTER, Outage
from shared.bus.producer import BusDown, Producer
from shared.bus.record_macs import UNAUTHENTICATED, RecordMacs
from shared.bus.sent_messages import Position, SentMessages
from shared.bus.topics import dead_letter_topic
from shared.bus.unknown_types import UnknownTypes
from shared.dead_letters.records import dead_letter_record, is_replay_for_other_group
from shared.errors import QueryTimeout, Refusal, Unavailable, Unknown
from shared.fault_points import armed, fault_point
from shared.messages import Message, Query
from shared.metrics import DEAD_LETTERS, MESSAGES_HANDLED, REPLIES_LOST, RETRIES, labelled
from shared.mongo import dependency_down, refusal, timed_out
from shared.sealing import Sealer
from shared.telemetry import log

Result = TypeVar("Result")
MAX_ATTEMPTS: Final = 5
FIRST_PAUSE: Final = 0.2
"""Seconds before the second attempt, on average."""
PAUSE_GROWTH: Final = 3.0
OUTAGE_PAUSE: Final = 1.0
"""Maximum seconds between two attempts during an outage."""
LONGEST_PAUSE: Final = 30.0
"""Maximum seconds between two attempts that time out although MongoDB answers. The pause doubles with each, so that a
command that reads too much does not add to the load for ever."""
NOTICE_MILLISECONDS: Final = 700
"""How long before its deadline a caller gets the notice that its message waits; leaves time for the reply to arrive."""
REPLY_SECONDS: Final = 5.0
"""Timeout of sending a reply."""
TRACE_CHARACTERS: Final = 8_000
REPLIES: Final = "gateway.replies"


class Stopping(Exception):
    """The process is stopping; the record is unfinished and will be delivered again."""


@dataclass(slots=True)
class Waiting:
    """A message whose caller waits for a reply.

    Attributes:
        envelope: the message, with its reply address and deadline.
        since: when it was read, monotonic seconds.
        notified: True if the caller has got the notice that the message waits for MongoDB or Kafka.
    """

    envelope: Envelope
    since: float
    notified: bool = False


@dataclass(slots=True)
class _Tries:
    """The failed attempts of one message.

    Attributes:
        waiting: the message.
        query: True if it is a query.
        failures: attempts that failed because of the message or its handler.
        timeouts: attempts in a row that timed out although MongoDB answers.
        interrupted: True if an attempt failed because of MongoDB or Kafka.
    """

    waiting: Waiting
    query: bool
    failures: int = 0
    timeouts: int = 0
    interrupted: bool = False


class Delivery:
    """Delivers the records of one service; its consumer group is written into dead letters.

    Attributes:
        waiting: messages in flight whose callers wait, by reply ID.
        unknown_types: the messages of unknown types that wait.
    """

    def __init__(
        self,
        handling: Handling,
        producer: Producer,
        macs: RecordMacs,
        *,
        outage: Outage,
        group: str,
        sealer: Sealer,
        spans: MessageSpans,
        sent: SentMessages,
        unknown_types: UnknownTypes,
    ) -> None:
        self._handling = handling
        self._producer = producer
        self._group = group
        self._sealer = sealer
        self._macs = macs
        self._spans = spans
        self._sent = sent
        self._service = handling.service
        self._stopping = asyncio.Event()
        self._replies: set[asyncio.Task[None]] = set()
        self._outage = outage
        self.unknown_types = unknown_types
        self.waiting: dict[str, Waiting] = {}

    @property
    def in_outage(self) -> bool:
        """Whether MongoDB is away."""
        return self._outage.begun.is_set()

    def stop(self) -> None:
        """Make no further attempts; a message that waits for one raises Stopping."""
        self._stopping.set()

    def skips(self, record: Record, topic: str) -> bool:
        """Return True if a record needs no delivery: another group's replay, or an event that is not handled."""
        needless = is_replay_for_other_group(record.headers, self._group) or self._handling.skips(record, topic)
        return needless and self.problem(record, topic) is None

    def problem(self, record: Record, topic: str) -> str | None:
        """Return why a record is not authentic; None if it is."""
        return self._macs.problem(topic, record)

    async def deliver(self, record: Record, topic: str) -> bool:
        """Deliver any Kafka record of a topic, named without prefix.

        Returns:
            True if it was dead-lettered for a fault of this service or of the message. An unauthenticated one does not
            count: it says nothing about this service, and everyone who reaches the broker could pause a partition with
            ten of them. Nor does an unknown type, which had an alarm for hours.

        Raises:
            Stopping: the process is stopping and the record is unfinished.
            Postponed: it has an unknown type, and is to be delivered again later.
        """
        started = time.monotonic()
        problem = self.problem(record, topic)
        if problem is not None:
            UNAUTHENTICATED.labels(topic).inc()
            await self.dead_letter(record, topic, "unauthenticated", problem)
            return False
        try:
            envelope = Envelope.of(record, topic)
            envelope.delivery_began = started
            message = self._handling.decode(envelope)
        except EventNotHandled:
            return False
        except UnknownType as unknown:
            return await self._await_newer_release(record, envelope, unknown)
        except Undecodable as undecodable:
            await self.dead_letter(record, topic, "undecodable", str(undecodable))
            return True
        if isinstance(message, Query) and envelope.deadline and envelope.deadline < unix_milliseconds():
            MESSAGES_HANDLED.labels(self._service, envelope.wire, "dropped").inc()
            return False
        with self._spans.begin(envelope, record) as span:
            return await self._finish(record, envelope, message, span)

    async def _await_newer_release(self, record: Record, envelope: Envelope, unknown: UnknownType) -> bool:
        """Postpone a message of an unknown type; dead-letter it after hours and return False.

        Raises:
            Postponed: it waits.
        """
        tries = _Tries(Waiting(envelope, time.monotonic()), query=False, interrupted=True)
        # The caller gets `unavailable` shortly before its deadline.
        self.unknown_types.wait(record, envelope, lambda: self._notify_before_deadline(tries))
        await self.dead_letter(record, envelope.topic, "undecodable", str(unknown))
        return False

    async def _finish(self, record: Record, envelope: Envelope, message: Message, span: MessageSpan) -> bool:
        """Bring a message to its outcome and send it; return True if it was dead-lettered instead."""
        try:
            outcome = await self._outcome(envelope, message)
        except TooOld as too_old:
            await self.dead_letter(record, envelope.topic, "too_old", str(too_old))
            span.finish(None)
            return True
        except _GivenUp as given_up:
            failure = given_up.__cause__
            await self.dead_letter(record, envelope.topic, "failing", type(failure).__name__, failure)
            self._send_reply_soon(envelope, refused(Unknown()))
            span.finish(None)
            return True
        await self._send_outcome(envelope, outcome, query=isinstance(message, Query))
        labelled(MESSAGES_HANDLED, self._service, envelope.wire, outcome.kind).inc()
        span.finish(outcome)
        return False

    async def _outcome(self, envelope: Envelope, message: Message) -> Outcome:
        """Attempt a message until it has an outcome.

        Raises:
            TooOld: it is older than the inbox.
            _GivenUp: ``MAX_ATTEMPTS`` attempts failed.
            Stopping: the process is stopping.
        """
        waiting = Waiting(envelope, time.monotonic())
        if envelope.reply_to is not None and envelope.deadline:
            self.waiting[envelope.reply_id] = waiting
        tries = _Tries(waiting, query=isinstance(message, Query))
        notice = self._notify_before_deadline(tries)
        try:
            while True:
                try:
                    return await self._handling.handle(envelope, message)
                except TooOld:
                    raise
                except Exception as failure:  # any exception of a handler ends up here
                    if self._stopping.is_set():
                        raise Stopping from failure
                    refusal_or_pause = await self._after(failure, tries)
                if isinstance(refusal_or_pause, Refusal):
                    return refused(refusal_or_pause)
                RETRIES.labels(self._service, envelope.wire).inc()
                await self._pause(refusal_or_pause)
        finally:
            self.waiting.pop(envelope.reply_id, None)
            if notice is not None:
                notice.cancel()

    async def _after(self, failure: Exception, tries: _Tries) -> Refusal | float:
        """Return the refusal that ends a message after a failed attempt, or the seconds before the next attempt.

        Raises:
            _GivenUp: it was the last attempt.
        """
        envelope = tries.waiting.envelope
        if dependency_down(failure) or isinstance(failure, BusDown | WriteConflict):
            tries.interrupted = True
            slow = await self._is_slow(failure, envelope)
            if tries.query and (refusal := self._query_refusal(tries.waiting, slow=slow)):
                return refusal
            pause = min(OUTAGE_PAUSE * 2.0**tries.timeouts, LONGEST_PAUSE)
            tries.timeouts = tries.timeouts + 1 if slow else 0
            return pause * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter
        tries.failures += 1
        log.error("handler failed", type=envelope.wire, id=envelope.id, attempts=tries.failures, exc_info=failure)
        if tries.query:
            return Unknown()
        if tries.failures == MAX_ATTEMPTS:
            raise _GivenUp from failure
        return FIRST_PAUSE * PAUSE_GROWTH ** (tries.failures - 1) * random.uniform(0.5, 1.5)  # noqa: S311 -- jitter

    async def _is_slow(self, failure: Exception, envelope: Envelope) -> bool:
        """Return True if an operation took too long although MongoDB answers; logs what the message waits for."""
        if dependency_down(failure) and await self._outage.is_on(refusal(failure)):
            # The outage has a log entry of its own, instead of one for each message.
            return False
        slow = timed_out(failure)
        event = "operation too slow" if slow else "dependency unavailable"
        log.warning(event, type=envelope.wire, id=envelope.id, error=type(failure).__name__)
        return slow

    def _query_refusal(self, waiting: Waiting, *, slow: bool) -> Refusal | None:
        """Return the refusal of a query that failed because of MongoDB or Kafka; None if it is to be tried again."""
        if slow:
            return QueryTimeout()
        deadline = waiting.envelope.deadline
        near = bool(deadline) and unix_milliseconds() > deadline - NOTICE_MILLISECONDS
        return Unavailable(retry_after=RETRY_AFTER) if near or waiting.notified or self._outage.lasts else None

    def _notify_before_deadline(self, tries: _Tries) -> asyncio.TimerHandle | None:
        """Schedule the notice for a message that waits for MongoDB or Kafka shortly before its deadline.

        Without it the caller would only see a timeout. The message itself stays and is handled later.
        """
        envelope = tries.waiting.envelope
        if envelope.reply_to is None or not envelope.deadline:
            return None

        def notify() -> None:
            # Its first attempt may still wait for a MongoDB that other messages have found to be away.
            if tries.interrupted or self._outage.suspected:
                self.notify_unavailable(tries.waiting)

        remaining = envelope.deadline - NOTICE_MILLISECONDS - unix_milliseconds()
        return asyncio.get_running_loop().call_later(max(remaining, 0) / 1000, notify)

    def notify_unavailable(self, waiting: Waiting) -> None:
        """Reply ``unavailable`` to a caller, once: its message waits and is handled later."""
        if waiting.envelope.deadline and not waiting.notified:
            waiting.notified = True
            self._send_reply_soon(waiting.envelope, refused(Unavailable(retry_after=RETRY_AFTER)))

    async def _send_outcome(self, envelope: Envelope, outcome: Outcome, *, query: bool) -> None:
        """Send the reply and the messages; return when Kafka has acknowledged the messages.

        A query has no inbox row to send its audit entry again from, so the entry must be on Kafka before the reply.
        """
        reply = self._send_reply_soon(envelope, outcome) if outcome.replies and not query else None
        messages = outcome.messages
        if outcome.replayed and self._sent.acknowledged(envelope.id):
            # Several messages may order the same effect under one ID, and a sender may repeat one. Only a repeat after
            # a crash or a rebalance must send again, because then nobody knows whether the messages were sent.
            messages = [message for message in messages if message.forwarded]
        positions: list[Position] = []
        if messages:
            if armed("V3"):
                half = messages[: max(1, len(messages) // 2)]
                await self._until_bus_is_up(lambda: self._producer.send(*half))
                fault_point("V3")
            positions = await self._until_bus_is_up(lambda: self._producer.send(*messages))
        if not (query or outcome.throttled):
            self._sent.add(envelope.id, messages, positions, reply=None if envelope.repeatable else reply)
        if outcome.replies and query:
            self._send_reply_soon(envelope, outcome)
        if armed("V4"):
            await self.replies_sent()
            fault_point("V4")

    async def _until_bus_is_up(self, send: Callable[[], Awaitable[Result]]) -> Result:
        while True:
            try:
                return await send()
            except BusDown as down:
                log.warning("bus down", error=str(down))
                await self._pause(OUTAGE_PAUSE)

    def _send_reply_soon(self, envelope: Envelope, outcome: Outcome) -> asyncio.Future[bool] | None:
        """Send a reply in the background: a failing reply topic must not delay the next message of the key.

        Returns:
            Whether Kafka has acknowledged it, once that is known; None if no reply is expected. It is no task, since
            that would keep the context of its message in memory for as long as the row is remembered.
        """
        if envelope.reply_to is None:
            return None
        acknowledged: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._send_reply(envelope, outcome, acknowledged))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)
        return acknowledged

    async def replies_sent(self) -> None:
        """Wait until every reply is sent or given up."""
        while self._replies:
            await asyncio.wait(self._replies)

    async def _send_reply(self, envelope: Envelope, outcome: Outcome, acknowledged: asyncio.Future[bool]) -> None:
        """Send a reply, or give up after a timeout: by then the caller has timed out too and may repeat its request.

        ``acknowledged`` gets whether Kafka has acknowledged it.
        """
        sent = False
        headers = [("id", envelope.reply_id.encode()), ("kind", outcome.kind.encode())]
        if envelope.delivery_began:
            headers.append((HANDLING_TIME, b"%d" % (1000 * (time.monotonic() - envelope.delivery_began))))
        if outcome.replayed:
            headers.append(("replayed", b"1"))
        try:
            await self._producer.send_record(
                REPLIES, outcome.body or b"", headers, partition=envelope.reply_to, timeout=REPLY_SECONDS
            )
            sent = True
        except (BusDown, AssertionError) as failure:  # aiokafka asserts that the partition exists
            REPLIES_LOST.labels(self._service).inc()
            log.warning("reply lost", id=envelope.id, type=envelope.wire, error=str(failure))
        finally:
            acknowledged.set_result(sent)

    async def dead_letter(
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
