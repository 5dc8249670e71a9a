"""Recording of audit entries: one entry and one event for each audited message, whatever its outcome."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Protocol, TypeVar

from services.auth.audit.models import AuditEntry
from services.auth.audit.store import AuditEntries
from shared.bus.work import Work
from shared.errors import Refusal
from shared.messages.auth.audit import NOTE_FIELDS, Action, Audited, RecordAuditEntry

Order = TypeVar("Order")
Reply = TypeVar("Reply")


class AuditRecorder:
    """Records audit entries.

    The message contains caller and IP address. A handler adds what it finds out about the subject with
    ``work.annotate(user_id=…, client_id=…, session_id=…)``, under the names in ``NOTE_FIELDS``. It may add only IDs
    that auth has generated or found, since text from a client might be a secret in the wrong field.

    Args:
        entries: store of the entries.
    """

    def __init__(self, entries: AuditEntries) -> None:
        self._entries = entries

    def record(self, work: Work, action: Action, *, refusal: Refusal | None = None, **annotations: str | None) -> None:
        """Add an entry to the work.

        ``audited`` does this for whole handlers. Call it directly for further actions of one message.

        Args:
            work: work of the message.
            action: what was tried.
            refusal: the refusal, if any.
            annotations: values that replace the handler's annotations.

        Raises:
            TypeError: an annotation has a name that is not in ``NOTE_FIELDS``.
        """
        about = {**work.annotations, **annotations}
        if not about.keys() <= NOTE_FIELDS:
            raise TypeError(f"unknown audit annotations: {', '.join(sorted(about.keys() - NOTE_FIELDS))}")
        caller = work.caller
        entry = AuditEntry(
            id=work.new_id("auditentry"),
            at=work.now,
            action=action,
            outcome="done" if refusal is None else "refused",
            code=None if refusal is None else refusal.code,
            caller=caller.kind,
            caller_user_id=caller.user_id,
            user_id=about.get("user_id", caller.user_id),
            client_id=about.get("client_id"),
            session_id=about.get("session_id"),
            identifier_id=about.get("identifier_id"),
            client_ip=caller.client_ip,
            message_id=work.id,
            resource_id=about.get("resource_id"),
        )
        self._add(entry, work)

    def record_for_service(self, command: RecordAuditEntry, work: Work) -> None:
        """Add the entry of a message that another service has handled.

        Args:
            command: what the other service reports.
            work: work of the command, whose caller is the caller of the other service's message.
        """
        entry = AuditEntry(
            id=work.new_id("auditentry"),
            at=command.at,
            action=command.action,
            outcome="done" if command.refused_as is None else "refused",
            code=command.refused_as,
            caller=work.caller.kind,
            caller_user_id=work.caller.user_id,
            user_id=command.user_id,
            client_id=command.client_id,
            session_id=command.session_id,
            identifier_id=command.identifier_id,
            client_ip=work.caller.client_ip,
            message_id=command.message_id,
            resource_id=command.resource_id,
        )
        self._add(entry, work)

    def _add(self, entry: AuditEntry, work: Work) -> None:
        self._entries.add(entry, work)
        work.publish(Audited(key=entry.user_id or "", entry=entry.view()))


class WithAudit(Protocol):
    """A handler context with an audit recorder."""

    @property
    def audit(self) -> AuditRecorder:
        """The recorder."""


Context = TypeVar("Context", bound=WithAudit)
Handler = Callable[[Order, Work, Context], Awaitable[Reply]]


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
