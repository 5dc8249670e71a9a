"""What happens to one message? Found in the inbox, or handled and committed; the same for every service."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from shared.audit import audit_if_declared
from shared.bus.bulk_writes import VersionConflict
from shared.bus.envelope import Envelope, Record, Undecodable, unix_milliseconds
from shared.bus.inbox import DONE, AlreadyDone, Contended, FingerprintDiffers, Inbox, Outcome
from shared.bus.work import Work
from shared.errors import IdempotencyKeyReused, Kind, Refusal
from shared.ids import Ids
from shared.messages import MESSAGES, Event, Message, Query
from shared.sealing import Sealer

Handler = Callable[[Any, Work, Any], Awaitable[BaseModel | None]]
"""``async def verb_object(message, work, context) -> view | None``."""
Handlers = Mapping[type[Message], Handler]
RERUNS: Final = 50
"""How often a handler may lose against others before the message counts as failing."""
CONTENDED_PAUSES: Final = (0.002, 0.1)
"""Seconds: the first pause when another transaction is in the way, and the longest that it grows to."""
UNUSUAL_RUNS: Final = 5
"""After so many, some 50 ms, it is no neighbour's commit that is in the way."""
HANDLER_SECONDS: Final = 60.0
"""No handler runs longer; one that hangs must not hold its key for ever."""
REPLY_RECEIVER: Final = "gateway"
"""Sealed replies are closed for whoever asks over HTTP."""


class TooOld(Exception):
    """The message is older than the inbox remembers: whether it was handled can't be told any more."""


class NotForUs(Exception):
    """An event that this service does not follow."""


class Handling:
    """Runs messages through the handlers of one service, each to one outcome.

    Args:
        service: its name; what secrets for it are sealed under.
        handlers: which function handles which message.
        context: the handlers' third argument.
        inbox: where outcomes are kept.
        ids: makes ids.
        sealer: closes secrets of outgoing messages.
        clock: the time; injected by tests.
    """

    def __init__(
        self,
        *,
        service: str,
        handlers: Handlers,
        context: Any,
        inbox: Inbox,
        ids: Ids,
        sealer: Sealer,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.service = service
        self._handlers = {handled.wire: (handled, handler) for handled, handler in handlers.items()}
        self._not_followed = {
            wire.encode(): kind.topic
            for wire, kind in MESSAGES.items()
            if issubclass(kind, Event) and wire not in self._handlers
        }
        self._context = context
        self._inbox = inbox
        self._ids = ids
        self._sealer = sealer
        self._clock = clock

    def passes_over(self, record: Record, topic: str) -> bool:
        """Whether a record is an event that this service does not follow, judged by its type alone.

        A service follows few of the events on a topic, and to read one whole costs ten times as much as its type.
        Where this says no, ``decode`` still may.

        Args:
            record: any record at all.
            topic: its topic without the deployment's prefix.
        """
        for name, value in record.headers:
            if name == "type":
                return self._not_followed.get(value) == topic
        return False

    def decode(self, envelope: Envelope) -> Message:
        """The message in an envelope.

        Raises:
            Undecodable: not a message that belongs on this topic, or its body has a wrong shape.
            NotForUs: an event that this service does not follow.
        """
        kind = MESSAGES.get(envelope.wire)
        if kind is not None and kind.topic != envelope.topic:
            raise Undecodable(f"{kind.wire} does not belong on this topic")
        found = self._handlers.get(envelope.wire)
        if found is None:
            if envelope.topic.endswith(".events") or (kind is not None and issubclass(kind, Event)):
                # Publishers may be ahead of us: an event that is new to us is not an error.
                raise NotForUs(envelope.wire)
            # A type that is none may say anything, and this ends in logs.
            raise Undecodable(f"{self.service} does not handle {'this type' if kind is None else kind.wire}")
        try:
            return found[0].model_validate_json(envelope.body)
        except (ValidationError, ValueError, RecursionError) as wrong:
            raise Undecodable(f"the body is not a {envelope.wire}: {_where(wrong)}") from None

    async def handle(self, envelope: Envelope, message: Message) -> Outcome:
        """Bring a message to its outcome: the one it had, or a new one, committed.

        Raises:
            TooOld: it is older than the inbox remembers.
            Contended: somebody else holds what it writes, for seconds now; no fault of the message.
            PyMongoError, and whatever a handler lets through: nothing is known to be committed; try again.
        """
        if isinstance(message, Query):
            return await self._answer(envelope, message)
        try:
            known = await self._inbox.find(envelope)
        except FingerprintDiffers:
            return refused(IdempotencyKeyReused())
        if known is not None:
            return known
        # A replay in spite of its age is remembered from its own time on.
        remembered_since = unix_milliseconds() - self._inbox.retention.total_seconds() * 1000
        if max(envelope.time, envelope.replayed_at) < remembered_since:
            raise TooOld(f"made {envelope.time}, and the inbox remembers {self._inbox.retention}")
        return await self._run(envelope, message)

    async def _answer(self, envelope: Envelope, query: Query) -> Outcome:
        """Ask, without an effect: nothing is committed, and all that may leave is what is recorded of the asking."""
        work = self._work(envelope)
        refusal: Refusal | None = None
        try:
            outcome = Outcome(DONE, self._body(await self._call(query, work), envelope))
        except Refusal as raised:
            outcome, refusal = refused(raised), raised
        if refusal is None or refusal.kind is not Kind.UNAVAILABLE:
            work.discard_state()
            work.run_outcome_hook(refusal)
            outcome.messages = work.immediate()
        return outcome

    async def _run(self, envelope: Envelope, message: Message) -> Outcome:
        contended: Contended | None = None
        for run in range(RERUNS):
            work = self._work(envelope)
            try:
                try:
                    reply = await self._call(message, work)
                except Refusal as refusal:
                    return await self._refuse(work, refusal)
                work.run_outcome_hook(None)
                outcome = Outcome(DONE, self._body(reply, envelope), work.immediate(), answers=work.replies)
                try:
                    await self._inbox.commit(work, outcome)
                except Refusal as refusal:
                    return await self._refuse(work, refusal)
            except Contended as held:
                contended = held
                await asyncio.sleep(_pause(run))
                if run >= UNUSUAL_RUNS:
                    await self._inbox.free_abandoned()
            except VersionConflict:
                contended = None
            except AlreadyDone:
                return await self._earlier(envelope)
            else:
                return outcome
        raise contended or RuntimeError(f"{envelope.wire} lost {RERUNS} times against others")

    async def _refuse(self, work: Work, refusal: Refusal) -> Outcome:
        """Keep a refusal, with the state that belongs to it if it must be remembered."""
        outcome = refused(refusal)
        if refusal.kind is Kind.UNAVAILABLE:
            return outcome
        if not refusal.remembered:
            work.discard_state()
        work.run_outcome_hook(refusal)
        outcome.messages = work.immediate()
        # Whoever comes back after the wait with the same idempotency key must find that it is over.
        outcome.kept = refusal.remembered or refusal.kind is not Kind.THROTTLED
        if outcome.kept or work.writes:
            await self._inbox.commit(work, outcome)
        return outcome

    async def _earlier(self, envelope: Envelope) -> Outcome:
        try:
            known = await self._inbox.find(envelope)
        except FingerprintDiffers:
            return refused(IdempotencyKeyReused())
        if known is None:
            raise RuntimeError(f"{envelope.id} is in the inbox and can't be read there")
        return known

    async def _call(self, message: Message, work: Work) -> BaseModel | None:
        handler = self._handlers[type(message).wire][1]
        audit_if_declared(message, work)
        try:
            async with asyncio.timeout(HANDLER_SECONDS):
                return await handler(message, work, self._context)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this message was cancelled but what its handler waited for: a failure, to be tried again.
            raise RuntimeError(f"{type(message).wire}: what its handler waited for was cancelled") from None

    def _work(self, envelope: Envelope) -> Work:
        return Work(envelope, now=self._clock(), ids=self._ids, sealer=self._sealer)

    def _body(self, reply: BaseModel | None, envelope: Envelope) -> bytes | None:
        if reply is None:
            return None
        body = reply.__pydantic_serializer__.to_json(reply)
        if MESSAGES[envelope.wire].reply_sealed:
            return self._sealer.seal(REPLY_RECEIVER, body).encode()
        return body


def _pause(run: int) -> float:
    first, longest = CONTENDED_PAUSES
    return min(first * 2.0**run, longest) * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter


def refused(refusal: Refusal) -> Outcome:
    """The outcome that a refusal is."""
    return Outcome(refusal.kind.value, json.dumps(refusal.body()).encode())


def _where(wrong: Exception) -> str:
    """The places of a validation error, without the values found there."""
    if isinstance(wrong, ValidationError):
        errors = wrong.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['type']}" for error in errors[:5])
    return type(wrong).__name__
