"""Handling of one message: its earlier outcome from the inbox, or a run of its handler and a commit.

A handler can run several times, because a commit fails when another message has changed what the handler read. Only one
of the runs is committed.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from inspect import iscoroutinefunction
from types import ModuleType
from typing import Any, Final, Protocol, TypeVar, get_type_hints

from pydantic import BaseModel, ValidationError

from shared.audit import audit_if_declared
from shared.bus.bulk_writes import VersionConflict
from shared.bus.envelope import Envelope, Record, Undecodable, unix_milliseconds
from shared.bus.inbox import DONE, AlreadyHandled, Inbox, MessageIdReused, Outcome, WriteConflict
from shared.bus.work import Work
from shared.errors import IdempotencyKeyReused, Kind, Refusal
from shared.ids import Ids
from shared.messages import MESSAGES, Event, Message, Query
from shared.messages.republishing import RepublishMessages
from shared.mongo import time_limit
from shared.sealing import Sealer

Handler = Callable[[Any, Work, Any], Awaitable[BaseModel | None]]
"""``async def verb_object(message, work, context) -> view | None``."""
Handlers = Mapping[type[Message], Handler]
AnyHandler = TypeVar("AnyHandler", bound=Callable[..., Awaitable[Any]])
FRESH_SECONDS: Final = 1.0
"""Age up to which a message is taken for one that was not delivered before: replacing a consumer takes longer."""


def without_search(handler: AnyHandler) -> AnyHandler:
    """Decorate a handler so that it runs before the inbox is searched for an earlier outcome of its message.

    For handlers that have no effects but those of their work. A message that was delivered before is recognized by its
    inbox row at the commit, or by a search before a refusal. So a search is saved for each of the others; only fresh
    messages without an idempotency key count on that, since a repeat costs more than it.
    """
    handler.without_search = True  # type: ignore[attr-defined]
    return handler


def handlers_in(*modules: ModuleType) -> Handlers:
    """Collect the handlers that modules define, by the message that each handles.

    A handler is a coroutine function that is named after the message of its first parameter: ``send_magic_link``
    handles ``SendMagicLink``.
    """
    functions = [each for module in modules for each in vars(module).values() if iscoroutinefunction(each)]
    named = {function: next(iter(get_type_hints(function).values()), None) for function in functions}
    return {
        message: function
        for function, message in named.items()
        if isinstance(message, type) and issubclass(message, Message) and function.__name__ == _snake(message.__name__)
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


WIRE_NAME: Final = re.compile(r"([a-z]+)\.[a-z0-9-]{1,100}")
"""Wire name of a message; its first part is a service."""
MAX_RUNS: Final = 50
"""Runs of a handler that lose against other messages before the attempt counts as failed."""
CONFLICT_PAUSES: Final = (0.002, 0.1)
"""First and longest pause after a write conflict with another transaction, seconds."""
ABANDONED_AFTER_RUNS: Final = 5
"""Write conflicts in a row, some 50 ms, after which the other transaction may belong to a dead process."""
HANDLER_SECONDS: Final = 60.0
"""Timeout of a handler, so that one that hangs does not block its key for ever."""
REPLY_RECEIVER: Final = "gateway"
"""Receiver that replies with secrets are sealed for."""


class TooOld(Exception):
    """The message is older than the inbox's retention, so it is unknown whether it was handled."""


class UnknownType(Undecodable):
    """The type belongs to a known service, and this release does not handle it: a newer one does, or will."""


class EventNotHandled(Exception):
    """The service has no handler for this event."""


class RefusalBudget(Protocol):
    """Decides whether the refusal of an anonymous command is stored."""

    async def spend(self, work: Work, refusal: Refusal) -> Refusal | None:
        """Count a refusal; return the one that replaces it, and for which nothing is stored, or None."""


class WantedEvents(Protocol):
    """Decides which of the handled events need no handling now, because nobody waits for them."""

    def skips(self, wire: str) -> bool:
        """Return True if the event with this wire name needs no handling."""


class Handling:
    """Runs messages through the handlers of one service.

    ``context`` is the third argument of every handler. If it has a ``refusal_budget``, that limits what refused
    anonymous commands store; if it has ``wanted_events``, the events that these skip are not handled. ``on_timer`` is
    called with the time of each delayed message that is committed.
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
        on_timer: Callable[[datetime], None] = lambda _: None,
    ) -> None:
        self.service = service
        self._handlers = {kind.wire: (kind, handler) for kind, handler in handlers.items()}
        self._known_services = {kind.service for kind in MESSAGES.values()}
        self._skipped_topics = {
            wire.encode(): (kind.topic, kind.former_topic)
            for wire, kind in MESSAGES.items()
            if issubclass(kind, Event | RepublishMessages) and wire not in self._handlers
        }
        self._context = context
        self._refusal_budget: RefusalBudget | None = getattr(context, "refusal_budget", None)
        self._wanted_events: WantedEvents | None = getattr(context, "wanted_events", None)
        self._handled_events = {
            wire.encode(): kind for wire, (kind, _) in self._handlers.items() if issubclass(kind, Event)
        }
        self._without_search = {
            kind.wire for kind, handler in handlers.items() if getattr(handler, "without_search", False)
        }
        self._inbox = inbox
        self._ids = ids
        self._sealer = sealer
        self._clock = clock
        self._on_timer = on_timer

    def skips(self, record: Record, topic: str) -> bool:
        """Return True if a record is an event that needs no handling, judged by its ``type`` header alone.

        A service handles few of the events on a topic, and decoding one costs ten times as much as this check. Where it
        returns False, ``decode`` may still raise EventNotHandled.
        """
        for name, value in record.headers:
            if name == "type":
                if self._wanted_events is not None and (kind := self._handled_events.get(value)) is not None:
                    return kind.topic == topic and self._wanted_events.skips(kind.wire)
                return topic in self._skipped_topics.get(value, ())
        return False

    def decode(self, envelope: Envelope) -> Message:
        """Parse the message in an envelope.

        Raises:
            UnknownType: a type of a known service that only another release handles.
            Undecodable: the type does not belong on this topic, or the body is invalid.
            EventNotHandled: a known event without a handler in this service.
        """
        kind = MESSAGES.get(envelope.wire)
        if kind is not None and envelope.topic not in (kind.topic, kind.former_topic):
            raise Undecodable(f"{kind.wire} does not belong on this topic")
        known = self._handlers.get(envelope.wire)
        if known is None:
            if kind is not None and issubclass(kind, Event | RepublishMessages):
                raise EventNotHandled(envelope.wire)
            # During a deployment a publisher may be newer than this service. Of an unknown event nobody can tell
            # whether the newer release of this service follows it.
            name = WIRE_NAME.fullmatch(envelope.wire)
            if name is not None and name[1] in self._known_services:
                raise UnknownType(f"{self.service} does not know {envelope.wire}")
            # Any other type may contain anything, and this text is logged.
            raise Undecodable(f"{self.service} does not handle this type")
        try:
            return known[0].model_validate_json(envelope.body)
        except (ValidationError, ValueError, RecursionError) as invalid:
            raise Undecodable(f"the body is not a {envelope.wire}: {_locations(invalid)}") from None

    async def handle(self, envelope: Envelope, message: Message) -> Outcome:
        """Return the outcome of a message: the stored one if it was handled before, or a new one, committed.

        Raises:
            TooOld: the message is older than the inbox's retention.
            WriteConflict: another transaction has locked a document for seconds; not the message's fault.
            PyMongoError, any exception of the handler: nothing is known to be committed; to be retried.
        """
        if isinstance(message, Query):
            return await self._run_query(envelope, message)
        searched = not self._is_new(envelope)
        if searched and (earlier := await self._earlier(envelope)) is not None:
            return earlier
        # A forced replay counts from the time of the operator's order.
        oldest = unix_milliseconds() - self._inbox.retention.total_seconds() * 1000
        if max(envelope.time, envelope.replayed_at) < oldest:
            raise TooOld(f"sent at {envelope.time}, longer ago than the inbox retention of {self._inbox.retention}")
        return await self._run(envelope, message, searched=searched)

    def _is_new(self, envelope: Envelope) -> bool:
        """Return True if a message was probably not delivered before, and its handler may find out by running."""
        return (
            envelope.wire in self._without_search
            and not envelope.fingerprint
            and self._clock().timestamp() - envelope.time / 1000 < FRESH_SECONDS
        )

    async def _run_query(self, envelope: Envelope, query: Query) -> Outcome:
        """Run a query. Nothing is committed; it may only send audit entries and forward to another query."""
        work = self._work(envelope)
        refusal: Refusal | None = None
        forwarded: list[Envelope] = []
        try:
            with time_limit(query.read_seconds):
                reply = await self._call(query, work)
            outcome = Outcome(DONE, self._body(reply, envelope), replies=work.replies)
            forwarded = [each for each in work.immediate() if each.forwarded]
        except Refusal as raised:
            outcome, refusal = refused(raised), raised
        if refusal is None or refusal.kind is not Kind.UNAVAILABLE:
            work.discard_state()
            work.run_outcome_hook(refusal)
            outcome.messages = [*work.immediate(), *forwarded]
        return outcome

    async def _run(self, envelope: Envelope, message: Message, *, searched: bool) -> Outcome:
        """Run the handler and commit its work, until a commit succeeds; the inbox was ``searched`` before, or not."""
        conflict: WriteConflict | None = None
        for run in range(MAX_RUNS):
            try:
                return await self._run_once(envelope, message, searched=searched)
            except WriteConflict as raised:
                conflict = raised
                await asyncio.sleep(_conflict_pause(run))
                if run >= ABANDONED_AFTER_RUNS:
                    await self._inbox.kill_abandoned_transactions()
            except VersionConflict:
                conflict = None
            except AlreadyHandled:
                earlier = await self._earlier(envelope)
                if earlier is None:
                    raise RuntimeError(f"the inbox row of {envelope.id} exists and was not found") from None
                return earlier
        raise conflict or RuntimeError(f"{envelope.wire} lost {MAX_RUNS} times against other messages")

    async def _run_once(self, envelope: Envelope, message: Message, *, searched: bool) -> Outcome:
        work = self._work(envelope)
        try:
            reply = await self._call(message, work)
        except Refusal as refusal:
            # It may be due to what the message did when it was delivered before.
            if not searched and (earlier := await self._earlier(envelope)) is not None:
                return earlier
            return await self._refuse(work, refusal)
        work.run_outcome_hook(None)
        outcome = Outcome(DONE, self._body(reply, envelope), work.immediate(), replies=work.replies)
        try:
            await self._commit(work, outcome)
        except Refusal as refusal:  # raised for an Insert that a unique index rejected
            return await self._refuse(work, refusal)
        return outcome

    async def _refuse(self, work: Work, refusal: Refusal) -> Outcome:
        """Commit a refusal: with the state of the work if the refusal is ``remembered``, otherwise without."""
        outcome = refused(refusal)
        if refusal.kind is Kind.UNAVAILABLE:
            return outcome
        if self._refusal_budget is not None and work.caller.kind == "anonymous":
            replaced = await self._refusal_budget.spend(work, refusal)
            if replaced is not None:
                return refused(replaced)
        if not refusal.remembered:
            work.discard_state()
        work.run_outcome_hook(refusal)
        outcome.messages = work.immediate()
        # A repeat after the wait, with the same idempotency key, must run. A redelivery must not, since its caller was
        # told that the message was refused.
        outcome.throttled = refusal.kind is Kind.THROTTLED and not refusal.remembered
        if work.cause.waited_for or work.writes or not outcome.throttled:
            await self._commit(work, outcome)
        return outcome

    async def _commit(self, work: Work, outcome: Outcome) -> None:
        await self._inbox.commit(work, outcome)
        for at, _ in work.timers:
            self._on_timer(at)

    async def _earlier(self, envelope: Envelope) -> Outcome | None:
        """Return the outcome of an earlier delivery of the message; None if there was none."""
        try:
            return await self._inbox.find(envelope)
        except MessageIdReused:
            return refused(IdempotencyKeyReused())

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
            # Not this task was cancelled, but something that the handler awaited: a failure that is retried.
            raise RuntimeError(f"{type(message).wire}: something that its handler awaited was cancelled") from None

    def _work(self, envelope: Envelope) -> Work:
        return Work(envelope, now=self._clock(), ids=self._ids, sealer=self._sealer)

    def _body(self, reply: BaseModel | None, envelope: Envelope) -> bytes | None:
        if reply is None:
            return None
        body = reply.__pydantic_serializer__.to_json(reply)
        if MESSAGES[envelope.wire].reply_sealed:
            return self._sealer.seal(REPLY_RECEIVER, body).encode()
        return body


def refused(refusal: Refusal) -> Outcome:
    """Return the outcome of a refused message."""
    return Outcome(refusal.kind.value, json.dumps(refusal.body()).encode())


def _conflict_pause(run: int) -> float:
    first, longest = CONFLICT_PAUSES
    return min(first * 2.0**run, longest) * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter


def _locations(invalid: Exception) -> str:
    """Return where a body is invalid, without the values found there."""
    if isinstance(invalid, ValidationError):
        errors = invalid.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, error['loc'])) or 'body'}: {error['type']}" for error in errors[:5])
    return type(invalid).__name__
