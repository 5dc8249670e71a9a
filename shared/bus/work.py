"""What does one message change and say? Collected while its handler runs, committed together afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shared.bus.envelope import Envelope, encode
from shared.errors import Refusal
from shared.ids import Ids, derived_message_id
from shared.messages import Caller, Event, Message
from shared.mongo import Collection, Document
from shared.sealing import Sealer


@dataclass(frozen=True, slots=True)
class Insert:
    """A document that must be new.

    Attributes:
        taken: what to refuse with when a unique index says no; None: the handler runs again on the new truth.
    """

    collection: Collection
    document: Document
    taken: type[Refusal] | Refusal | None


@dataclass(frozen=True, slots=True)
class Replace:
    """A document that must still have ``version``; stored as ``version + 1``."""

    collection: Collection
    document: Document
    version: int


@dataclass(frozen=True, slots=True)
class Delete:
    """A document that must still have ``version``; None: it has none, and must still be there."""

    collection: Collection
    id: Any
    version: int | None


@dataclass(frozen=True, slots=True)
class Hold:
    """A document that must still have ``version`` at the commit, and keeps it."""

    collection: Collection
    id: Any
    version: int


Write = Insert | Replace | Delete | Hold
Recorder = Callable[[Refusal | None], None]
"""Writes down what came of a message: done, or refused with this."""


class Work:
    """One message's effects.

    Nothing here touches MongoDB or Kafka. After the handler has returned, writes, reply and messages commit in one
    transaction with the message's inbox row; then reply and messages leave. A handler may run twice; of two runs only
    one commits.

    Attributes:
        id: the message's id.
        key: what ordered it.
        caller: who asked, as the gateway verified it.
        now: the moment the handler began, UTC, whole milliseconds (as MongoDB keeps them).
        notes: what the handler found out about the message, for whoever records it.
    """

    __slots__ = ("_cause", "_ids", "_recorder", "_sealer", "_timers", "_writes", "answers", "notes", "now", "outgoing")

    def __init__(self, cause: Envelope, *, now: datetime, ids: Ids, sealer: Sealer) -> None:
        self._cause = cause
        self._ids = ids
        self._sealer = sealer
        self._writes: list[Write] = []
        self._timers: list[tuple[datetime, Envelope]] = []
        self._recorder: Recorder | None = None
        self.notes: dict[str, str | None] = {}
        self.now = now.astimezone(UTC).replace(microsecond=now.microsecond // 1000 * 1000)
        self.outgoing: list[tuple[Message, Envelope]] = []
        self.answers = True

    @property
    def id(self) -> str:
        """The message's id: the same at every delivery."""
        return self._cause.id

    @property
    def key(self) -> str:
        """What ordered the message."""
        return self._cause.key

    @property
    def caller(self) -> Caller:
        """Who asked, as the gateway verified it."""
        return self._cause.caller

    @property
    def cause(self) -> Envelope:
        """The message itself, as it came."""
        return self._cause

    @property
    def writes(self) -> list[Write]:
        """The state changes, in the order they were asked for."""
        return self._writes

    @property
    def timers(self) -> list[tuple[datetime, Envelope]]:
        """The messages for later, with the time each is due."""
        return self._timers

    @property
    def published(self) -> list[Message]:
        """The messages that leave after the commit, timers included, in order."""
        return [message for message, _ in self.outgoing]

    def new_id(self, resource: str) -> str:
        """A new id (``user_…``) of a resource."""
        return self._ids.new(resource)

    def insert(
        self, collection: Collection, document: Document, *, taken: type[Refusal] | Refusal | None = None
    ) -> None:
        """Store a new document; the collection's unique indexes judge.

        Removals are written first, then replacements and holds, then inserts; within each kind there is no order.

        Args:
            collection: where.
            document: with ``_id`` and, if it is ever replaced, ``version`` 1.
            taken: what to refuse with when one of them says no; by default the handler runs again.
        """
        self._writes.append(Insert(collection, document, taken))

    def replace(self, collection: Collection, document: Document, *, version: int) -> None:
        """Store a document in place of the one with its ``_id``, if that still has ``version``.

        Its own version becomes ``version + 1``. If it moved meanwhile, the handler runs again on the new truth.
        """
        self._writes.append(Replace(collection, {**document, "version": version + 1}, version))

    def delete(self, collection: Collection, id: Any, *, version: int | None) -> None:  # noqa: A002 -- the field's name
        """Remove a document, if it still has ``version``; otherwise the handler runs again."""
        self._writes.append(Delete(collection, id, version))

    def hold(self, collection: Collection, id: Any, *, version: int) -> None:  # noqa: A002 -- the field's name
        """See to it that a document stands, as it was read, when the work commits; otherwise the handler runs again.

        Nothing of it is changed, so any number of works may hold one at once: of a user and the application it signs
        up to, the application is held. Who removes it must look for what belongs to it after its removal is committed:
        from then on nothing can be added.
        """
        self._writes.append(Hold(collection, id, version))

    def record(self, recorder: Recorder) -> None:
        """Have it written down what comes of this message, whatever it is.

        The recorder is called once that is known: after the handler has returned, or when it, or at the commit an
        index, has refused and the state is dropped. What it then inserts and publishes commits with the rest. It is
        not called for a message refused as unavailable, which may come again. Of several the last one counts.
        """
        self._recorder = recorder

    def note(self, **facts: str | None) -> None:
        """Keep facts for the recorder: whose message it turned out to be, which session. They outlive a refusal."""
        self.notes.update(facts)

    def conclude(self, refusal: Refusal | None) -> None:
        """Let the recorder write; called by whoever runs the handler, right before each commit."""
        if self._recorder is not None:
            self._recorder(refusal)

    def publish(self, message: Message, *, at: datetime | None = None, id: str | None = None) -> str:  # noqa: A002
        """Say something once the state is committed.

        Args:
            message: a command for any service, or an event.
            at: not before this time; kept as a timer row until then.
            id: an id of its own, when several messages may order the same thing and it must happen once
                (``derived_message_id``). By default made from this message's id, the same at every run.

        Returns:
            The id under which it leaves.
        """
        envelope = self._envelope(message, id)
        if at is not None:
            self._timers.append((at, envelope))
        self.outgoing.append((message, envelope))
        return envelope.id

    def forward(self, message: Message) -> None:
        """Publish a command whose answer is the answer to this message; what this handler returns answers nobody."""
        envelope = self._envelope(message, None)
        envelope.answer_for(self._cause)
        self.answers = False
        self.outgoing.append((message, envelope))

    def departures(self) -> list[Envelope]:
        """What is put on the bus right after the commit, in order."""
        later = {id(envelope) for _, envelope in self._timers}
        return [envelope for _, envelope in self.outgoing if id(envelope) not in later]

    def forget_state(self) -> None:
        """Drop everything but the reply: the message was refused."""
        self._writes.clear()
        self._timers.clear()
        self.outgoing.clear()
        self.answers = True

    def _told(self, kind: type[Message]) -> Caller:
        """Whom a message names as its caller.

        What has happened is told to many, and kept by some topics for long: from which network it was asked for is
        nobody's business then. Orders need it, for limits and the audit.
        """
        caller = self._cause.caller
        if caller.client_ip is None or not issubclass(kind, Event):
            return caller
        return caller.model_copy(update={"client_ip": None})

    def _envelope(self, message: Message, own_id: str | None) -> Envelope:
        kind = type(message)
        return Envelope(
            id=own_id or derived_message_id(self._cause.id, kind.wire, str(len(self.outgoing))),
            wire=kind.wire,
            topic=kind.topic,
            key=message.key,
            body=encode(message, self._sealer),
            time=int(self.now.timestamp() * 1000),
            caller=self._told(kind),
            trace=self._cause.trace,
        )
