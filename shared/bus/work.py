"""Work: the writes and messages of one handled message, collected by its handler and committed together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prometheus_client import Counter

from shared.bus.envelope import Envelope, encode
from shared.errors import Refusal
from shared.ids import Ids, derived_message_id
from shared.messages import Caller, Event, Message
from shared.mongo import Collection, Document
from shared.sealing import Sealer


@dataclass(frozen=True, slots=True)
class Insert:
    """Insert a document; if a unique index rejects it, ``taken`` is the refusal, or the handler runs again."""

    collection: Collection
    document: Document
    taken: type[Refusal] | Refusal | None


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace a document that still has ``version``; it is stored with ``version + 1``."""

    collection: Collection
    document: Document
    version: int


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a document that still has ``version``; None if it has no version and must only exist."""

    collection: Collection
    id: Any
    version: int | None


@dataclass(frozen=True, slots=True)
class RequireVersion:
    """Require a document to have ``version`` at the commit, without changing it."""

    collection: Collection
    id: Any
    version: int


Write = Insert | Replace | Delete | RequireVersion
OutcomeHook = Callable[[Refusal | None], None]
"""Function called with the outcome of a message: None if it is done, or its refusal."""


class Work:
    """The unit of work of one message, whose envelope is ``cause``.

    The handler fills it; nothing is written to MongoDB or Kafka before the handler has returned. Then the writes, the
    reply and the messages are committed in one transaction with the message's inbox row, and only after that reply and
    messages are sent. A handler may run twice; only one of the runs is committed.

    Attributes:
        now: when the handler started, UTC, whole milliseconds (the precision of MongoDB).
        writes: the collected writes, in the order of the calls.
        timers: the delayed messages, each with the time when it is due.
        annotations: fields for the audit entry of the message.
        outgoing: the published messages with their envelopes, in order.
        replies: False if the reply to the caller comes from a forwarded command.
        urgent: True if its commit waits for no further works.
    """

    __slots__ = (
        *("annotations", "cause", "now", "outgoing", "replies", "timers", "urgent", "writes"),
        *("_caller_of_events", "_counts", "_created", "_ids", "_on_outcome", "_sealer"),
    )

    def __init__(self, cause: Envelope, *, now: datetime, ids: Ids, sealer: Sealer) -> None:
        self.cause = cause
        self._ids = ids
        self._created = 0
        self._sealer = sealer
        self._caller_of_events: Caller | None = None
        self._on_outcome: OutcomeHook | None = None
        self._counts: list[Counter] = []
        self.writes: list[Write] = []
        self.timers: list[tuple[datetime, Envelope]] = []
        self.annotations: dict[str, str | None] = {}
        self.now = now.astimezone(UTC).replace(microsecond=now.microsecond // 1000 * 1000)
        self.outgoing: list[tuple[Message, Envelope]] = []
        self.replies = True
        self.urgent = cause.waited_for

    @property
    def id(self) -> str:
        """Message ID, the same at every delivery."""
        return self.cause.id

    @property
    def key(self) -> str:
        """Ordering key of the message."""
        return self.cause.key

    @property
    def caller(self) -> Caller:
        """Caller of the message, as verified by the gateway."""
        return self.cause.caller

    @property
    def published(self) -> list[Message]:
        """The published messages, delayed ones included, in order."""
        return [message for message, _ in self.outgoing]

    def new_id(self, resource: str) -> str:
        """Return a new ID of a resource (``user_…``), the same at every delivery of the message."""
        self._created += 1
        return self._ids.derived(resource, self.cause.id, self.cause.time, self._created)

    def insert(
        self, collection: Collection, document: Document, *, taken: type[Refusal] | Refusal | None = None
    ) -> None:
        """Insert a document with an ``_id`` and, if it is ever replaced, ``version`` 1.

        The collection's unique indexes decide whether it is new. If one rejects it, the message is refused with
        ``taken``; by default the handler runs again and reads what is there. A commit executes deletes first, then
        replaces and version checks, then inserts, without order within a kind.
        """
        self.writes.append(Insert(collection, document, taken))

    def replace(self, collection: Collection, document: Document, *, version: int) -> None:
        """Replace a document if it still has the version that the handler read; if not, the handler runs again."""
        self.writes.append(Replace(collection, {**document, "version": version + 1}, version))

    def delete(self, collection: Collection, id: Any, *, version: int | None) -> None:  # noqa: A002 -- the field's name
        """Delete a document if it still has the version that the handler read; if not, the handler runs again.

        ``version`` is None for documents without versions, which need only exist.
        """
        self.writes.append(Delete(collection, id, version))

    def require_version(self, collection: Collection, id: Any, *, version: int) -> None:  # noqa: A002
        """Require a document to have the version that the handler read; if not, the handler runs again.

        The document is not changed, so concurrent works may require the same one: every sign-up to an application
        requires the application. Dependents of a deleted document can be searched after the commit of its deletion,
        because from then on none can be added.
        """
        self.writes.append(RequireVersion(collection, id, version))

    def on_outcome(self, hook: OutcomeHook) -> None:
        """Set the function that is called once the outcome of the message is known, done or refused.

        What it inserts and publishes is committed together with the outcome. If a unique index refuses the message at
        the commit, the function is called again, after the state was discarded. It is not called for a message refused
        as unavailable, because that one may be retried. A second call replaces the first function.
        """
        self._on_outcome = hook

    def commit_at_once(self) -> None:
        """Have the work committed without waiting for further ones, although no caller waits.

        For an effect outside of the work that only the commit keeps from being repeated, such as a mail sent.
        """
        self.urgent = True

    def count(self, counter: Counter) -> None:
        """Increment a metric once the work is committed. A handler may run several times, and a refusal discards it."""
        self._counts.append(counter)

    def increment_counters(self) -> None:
        """Increment the metrics given to ``count``; the bus does so after the commit."""
        for counter in self._counts:
            counter.inc()

    def annotate(self, **fields: str | None) -> None:
        """Add fields to the audit entry of the message, such as the ID of the user it concerns. Refusals keep them."""
        self.annotations.update(fields)

    def run_outcome_hook(self, refusal: Refusal | None) -> None:
        """Call the function set by ``on_outcome``; the bus does so right before each commit."""
        if self._on_outcome is not None:
            self._on_outcome(refusal)

    def publish(self, message: Message, *, at: datetime | None = None, id: str | None = None) -> str:  # noqa: A002
        """Publish a command for any service, or an event, once the work is committed; return its message ID.

        Args:
            message: the command or event.
            at: earliest time; until then the message waits in a timer row.
            id: message ID, if several messages may order the same effect and it must happen once
                (``derived_message_id``). By default derived from this message's ID, so that every run derives the same.
        """
        envelope = self._envelope(message, id)
        if at is not None:
            self.timers.append((at, envelope))
        self.outgoing.append((message, envelope))
        return envelope.id

    def forward(self, message: Message) -> None:
        """Publish a command whose reply is the reply to this message. The handler's own return value is discarded.

        A query forwards only to another query, since it has no inbox row from which to send a command again.
        """
        envelope = self._envelope(message, None)
        envelope.reply_to_caller_of(self.cause)
        self.replies = False
        self.outgoing.append((message, envelope))

    def immediate(self) -> list[Envelope]:
        """Return the envelopes to send right after the commit, in order: all but the delayed ones."""
        delayed = {id(envelope) for _, envelope in self.timers}
        return [envelope for _, envelope in self.outgoing if id(envelope) not in delayed]

    def discard_state(self) -> None:
        """Discard writes and messages, because the message was refused."""
        self.writes.clear()
        self.timers.clear()
        self.outgoing.clear()
        self._counts.clear()
        self.replies = True

    def _caller_for(self, kind: type[Message]) -> Caller:
        """Return the caller for a published message: with its IP address for rate limits and the audit of commands.

        Events omit the address: many services read them and some topics keep them for long.
        """
        caller = self.cause.caller
        if caller.client_ip is None or not issubclass(kind, Event):
            return caller
        if self._caller_of_events is None:
            self._caller_of_events = caller.model_copy(update={"client_ip": None})
        return self._caller_of_events

    def _envelope(self, message: Message, own_id: str | None) -> Envelope:
        kind = type(message)
        return Envelope(
            id=own_id or derived_message_id(self.cause.id, kind.wire, str(len(self.outgoing))),
            wire=kind.wire,
            topic=kind.topic,
            key=message.key,
            body=encode(message, self._sealer),
            time=int(self.now.timestamp() * 1000),
            caller=self._caller_for(kind),
            trace=self.cause.trace,
            request=self.cause.request,
        )
