"""Recording of audit entries: who tried what, when, from where, and with which outcome.

Each audited message leads to one entry and one event, whatever its outcome. They contain no secrets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from functools import partial, wraps
from typing import Literal, Protocol, TypeVar

from services.auth.audit.store import AuditEntries
from shared.bus.work import Work
from shared.errors import Refusal
from shared.ids import derived_message_id
from shared.messages import Caller
from shared.messages.auth.audit import NOTE_FIELDS, Action, Audited, AuditEntryView, RecordAuditEntry

Order = TypeVar("Order")
Reply = TypeVar("Reply")


class AuditRecorder:
    """Records audit entries.

    The message contains caller and IP address. A handler adds what it finds out about the subject with
    ``work.annotate(user_id=…, client_id=…, session_id=…)``, under the names in ``NOTE_FIELDS``. It may add only IDs
    that auth has generated or found, since text from a client might be a secret in the wrong field.

    Entries name people by ID only. So all entries about a person are found by the ID, and are anonymous after an
    erasure.
    """

    def __init__(self, entries: AuditEntries) -> None:
        self._entries = entries

    def record(self, work: Work, action: Action, *, refusal: Refusal | None = None, **annotations: str | None) -> None:
        """Add an entry to the work.

        ``audited`` does this for whole handlers. Call it directly for further actions of one message; ``annotations``
        replace those of the handler.

        Raises:
            TypeError: an annotation has a name that is not in ``NOTE_FIELDS``.
        """
        about = {**work.annotations, **annotations}
        if not about.keys() <= NOTE_FIELDS:
            raise TypeError(f"unknown audit annotations: {', '.join(sorted(about.keys() - NOTE_FIELDS))}")
        about.setdefault("user_id", work.caller.user_id)
        self._add(work, action, None if refusal is None else refusal.code, about, at=work.now, message_id=work.id)

    def record_for_service(self, command: RecordAuditEntry, work: Work) -> None:
        """Add the entry of a message that another service has handled, whose caller is that of the work.

        Or, if it names a network, an entry for many refused commands of anonymous callers.
        """
        about = command.model_dump(include=set(NOTE_FIELDS))
        self._add(
            work,
            command.action,
            command.refused_as,
            about,
            at=command.at,
            message_id=command.message_id,
            count=command.count,
            caller=None if command.network is None else Caller(client_ip=command.network or None),
        )

    def _add(
        self,
        work: Work,
        action: str,
        code: str | None,
        about: Mapping[str, str | None],
        *,
        at: datetime,
        message_id: str,
        count: int = 1,
        caller: Caller | None = None,
    ) -> None:
        caller = caller or work.caller
        entry = AuditEntryView(
            id=work.new_id("auditentry"),
            at=at,
            action=action,
            outcome="done" if code is None else "refused",
            code=code,
            caller=caller.kind,
            caller_user_id=caller.user_id,
            client_ip=caller.client_ip,
            key_name=caller.key_name,
            message_id=message_id,
            count=count,
            **{name: about.get(name) for name in NOTE_FIELDS},
        )
        self._entries.add(entry, work)
        work.publish(Audited(key=entry.user_id or "", entry=entry))


class WithAudit(Protocol):
    """A handler context with an audit recorder."""

    @property
    def audit(self) -> AuditRecorder:
        """The recorder."""


Context = TypeVar("Context", bound=WithAudit)
Handler = Callable[[Order, Work, Context], Awaitable[Reply]]


def pseudonym(kind: Literal["owner", "application", "application user"], uuid: str) -> str:
    """Name in the audit for something whose ID is a secret: always the same, and not reversible.

    The UUID of an owner authorizes new applications, and with old clients changes to the owner. UUIDs have 122 random
    bits, so a plain hash does not reveal them.
    """
    return f"{kind.replace(' ', '-')}_{derived_message_id('audit', kind, uuid)}"


def audited(action: Action) -> Callable[[Handler[Order, Context, Reply]], Handler[Order, Context, Reply]]:
    """Decorate a handler so that its outcome is audited, including refusals by an index at the commit.

    If an audited handler calls another one, one entry is recorded, with the action of the inner one.
    """

    def decorate(handler: Handler[Order, Context, Reply]) -> Handler[Order, Context, Reply]:
        @wraps(handler)
        async def wrapper(order: Order, work: Work, auth: Context) -> Reply:
            work.on_outcome(partial(_record_outcome, auth.audit, work, action))
            return await handler(order, work, auth)

        return wrapper

    return decorate


def _record_outcome(audit: AuditRecorder, work: Work, action: Action, refusal: Refusal | None) -> None:
    audit.record(work, action, refusal=refusal)
