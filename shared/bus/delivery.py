"""How is one record brought to its end? Tried, answered, published or put aside; never lost, never passed over.

Outcomes: done or refused (committed, answered, its messages published) · put aside in ``<topic>.dead`` with the reason
(undecodable, too old, or still failing after five tries) · dropped (a query whose deadline is over, an event that this
service does not follow). While MongoDB or Kafka is away nothing counts as a try: the message waits.
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from typing import Final

from shared.bus.envelope import Envelope, Record, Undecodable, unix_milliseconds
from shared.bus.handling import Handling, NotForUs, TooOld, refused
from shared.bus.inbox import Contended, Outcome
from shared.bus.producer import BusDown, Producer
from shared.bus.topics import dead_letter_topic
from shared.dead_letters.records import dead_letter_record, is_replay_for_other_group
from shared.errors import Unavailable, Unknown
from shared.fault_points import armed, fault_point
from shared.messages import Message, Query
from shared.mongo import dependency_down
from shared.sealing import Sealer
from shared.telemetry import (
    DEAD_LETTERS,
    MESSAGE_SECONDS,
    MESSAGES_HANDLED,
    REPLIES_LOST,
    RETRIES,
    Tracing,
    log,
)

TRIES: Final = 5
FIRST_PAUSE: Final = 0.2
PAUSE_GROWTH: Final = 3.0
OUTAGE_PAUSE: Final = 1.0
"""Seconds between two looks at a dependency that is away."""
NOTICE_MILLISECONDS: Final = 700
"""How long before its deadline a caller is told that a dependency is away: time enough for the reply's way."""
REPLY_SECONDS: Final = 5.0
TRACE_CHARACTERS: Final = 8_000
REPLIES: Final = "gateway.replies"


class Stopping(Exception):
    """The process is stopping; the record stays unfinished and comes back to whoever reads the partition next."""


class Delivery:
    """Brings the records of one service to their ends.

    Args:
        handling: what runs a message.
        producer: where replies, messages and dead letters leave.
        group: the consumer group, named in dead letters.
        sealer: closes them.
        tracing: where spans go.
    """

    def __init__(self, handling: Handling, producer: Producer, *, group: str, sealer: Sealer, tracing: Tracing) -> None:
        self._handling = handling
        self._producer = producer
        self._group = group
        self._sealer = sealer
        self._tracing = tracing
        self._service = handling.service
        self._stopping = asyncio.Event()
        self._answers: set[asyncio.Task[None]] = set()
        self._away = False
        """Whether the last message that was tried found a dependency away."""

    def stop(self) -> None:
        """No more tries: whatever waits for one ends with Stopping."""
        self._stopping.set()

    def passes_over(self, record: Record, topic: str) -> bool:
        """Whether a record needs no delivery: a replay for others, or as ``Handling.passes_over`` says."""
        return is_replay_for_other_group(record.headers, self._group) or self._handling.passes_over(record, topic)

    async def deliver(self, record: Record, topic: str) -> bool:
        """Bring a record to its end.

        Args:
            record: any record at all.
            topic: its topic without the deployment's prefix.

        Returns:
            Whether it was put aside as a dead letter.

        Raises:
            Stopping: the process is stopping and the record is not finished.
        """
        began = time.monotonic()
        try:
            envelope = Envelope.of(record, topic)
            message = self._handling.decode(envelope)
        except NotForUs:
            return False
        except Undecodable as wrong:
            await self._put_aside(record, topic, "undecodable", str(wrong))
            return True
        if isinstance(message, Query) and envelope.deadline and envelope.deadline < unix_milliseconds():
            MESSAGES_HANDLED.labels(self._service, envelope.wire, "dropped").inc()
            return False
        with self._tracing.span(envelope.wire, envelope.trace) as envelope.trace:
            dead_letter = await self._finish(record, envelope, message)
        MESSAGE_SECONDS.labels(self._service, envelope.wire).observe(time.monotonic() - began)
        return dead_letter

    async def _finish(self, record: Record, envelope: Envelope, message: Message) -> bool:
        try:
            outcome = await self._outcome(envelope, message)
        except TooOld as old:
            await self._put_aside(record, envelope.topic, "too_old", str(old))
            return True
        except _GivenUp as given_up:
            await self._put_aside(
                record, envelope.topic, "failing", type(given_up.__cause__).__name__, given_up.__cause__
            )
            self._answer_soon(envelope, refused(Unknown()))
            return True
        if isinstance(message, Query):
            await self._reply(envelope, outcome)
        else:
            await self._depart(envelope, outcome)
        MESSAGES_HANDLED.labels(self._service, envelope.wire, outcome.kind).inc()
        return False

    async def _outcome(self, envelope: Envelope, message: Message) -> Outcome:
        notice = self._notice(envelope)
        tries = 0
        try:
            while True:
                try:
                    outcome = await self._handling.handle(envelope, message)
                except TooOld:
                    raise
                except Exception as failure:  # whatever a handler lets through is judged here
                    if dependency_down(failure) or isinstance(failure, BusDown | Contended):
                        self._away = True
                        log.warning("dependency away", type=envelope.wire, id=envelope.id, error=type(failure).__name__)
                        if isinstance(message, Query) and _noticed(envelope):
                            return refused(Unavailable())
                        pause = OUTAGE_PAUSE * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter
                    else:
                        tries += 1
                        log.exception("handler failed", type=envelope.wire, id=envelope.id, tries=tries)
                        if isinstance(message, Query):
                            return refused(Unknown())
                        if tries == TRIES:
                            raise _GivenUp from failure
                        pause = FIRST_PAUSE * PAUSE_GROWTH ** (tries - 1) * random.uniform(0.5, 1.5)  # noqa: S311
                    RETRIES.labels(self._service, envelope.wire).inc()
                    await self._pause(pause)
                else:
                    self._away = False
                    return outcome
        finally:
            if notice is not None:
                notice.cancel()

    def _notice(self, envelope: Envelope) -> asyncio.TimerHandle | None:
        """Tell a caller shortly before its deadline that a dependency is away, if one is.

        It would only see a time-out else. The order itself stays and runs to its end.
        """
        if envelope.reply_to is None or not envelope.deadline:
            return None

        def tell() -> None:
            if self._away:
                self._answer_soon(envelope, refused(Unavailable()))

        left = envelope.deadline - NOTICE_MILLISECONDS - unix_milliseconds()
        return asyncio.get_running_loop().call_later(max(left, 0) / 1000, tell)

    async def _reply(self, envelope: Envelope, outcome: Outcome) -> None:
        """Send the answer to a question. Nothing of one is committed, so what is to be left of it goes first."""
        if outcome.messages:
            await self._publish(outcome.messages)
        self._answer_soon(envelope, outcome)

    async def _depart(self, envelope: Envelope, outcome: Outcome) -> None:
        """Send the answer, and every message until Kafka has them all."""
        if outcome.answers:
            self._answer_soon(envelope, outcome)
        if outcome.messages:
            if armed("V3"):
                await self._publish(outcome.messages[: max(1, len(outcome.messages) // 2)])
                fault_point("V3")
            await self._publish(outcome.messages)
        if armed("V4"):
            await self.answered()
            fault_point("V4")

    async def _publish(self, messages: list[Envelope]) -> None:
        while True:
            try:
                await self._producer.send(*messages)
            except BusDown as down:
                log.warning("bus down", error=str(down))
                await self._pause(OUTAGE_PAUSE)
            else:
                return

    def _answer_soon(self, envelope: Envelope, outcome: Outcome) -> None:
        """Answer beside the work: a reply topic in trouble must not hold up the messages behind this one."""
        if envelope.reply_to is None:
            return
        task = asyncio.create_task(self._answer(envelope, outcome))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def answered(self) -> None:
        """Wait until every answer has been sent or given up."""
        while self._answers:
            await asyncio.wait(self._answers)

    async def _answer(self, envelope: Envelope, outcome: Outcome) -> None:
        """Send the answer; given up after a while, since the caller has gone and may ask again."""
        headers = [("id", envelope.reply_id.encode()), ("kind", outcome.kind.encode())]
        if outcome.replayed:
            headers.append(("replayed", b"1"))
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await self._producer.send_record(REPLIES, outcome.body or b"", headers, partition=envelope.reply_to)
        except (BusDown, TimeoutError, AssertionError) as failure:  # aiokafka asserts that the partition exists
            REPLIES_LOST.labels(self._service).inc()
            log.warning("reply lost", id=envelope.id, type=envelope.wire, error=str(failure))

    async def _put_aside(
        self, record: Record, topic: str, reason: str, detail: str, failure: BaseException | None = None
    ) -> None:
        """Keep a record, sealed, with the reason; only then may its offset pass."""
        # Frames only: what an exception says may quote what it choked on.
        trace = "".join(traceback.format_tb(failure.__traceback__))[-TRACE_CHARACTERS:] if failure is not None else ""
        letter = dead_letter_record(
            record,
            topic,
            sealer=self._sealer,
            reason=reason,
            detail=detail,
            trace=trace,
            attempts=TRIES if failure is not None else 0,
            group=self._group,
            at=unix_milliseconds(),
        )
        DEAD_LETTERS.labels(self._service, reason).inc()
        log.error(
            "dead letter", topic=topic, partition=record.partition, offset=record.offset, reason=reason, detail=detail
        )
        while True:
            try:
                await self._producer.send_record(dead_letter_topic(topic), letter.value, letter.headers, key=letter.key)
            except BusDown as down:
                log.warning("bus down", error=str(down))
                await self._pause(OUTAGE_PAUSE)
            else:
                return

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise Stopping


class _GivenUp(Exception):
    """All tries are used; the cause is the last failure."""


def _noticed(envelope: Envelope) -> bool:
    """Whether the caller has been told already: nobody waits for more."""
    return bool(envelope.deadline) and unix_milliseconds() > envelope.deadline - NOTICE_MILLISECONDS
