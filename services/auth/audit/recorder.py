"""What remains of what somebody tried? An entry in the audit and an event, whatever came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Protocol, TypeVar

from services.auth.audit.models import AuditEntry
from services.auth.audit.store import AuditEntries
from shared.bus.work import Work
from shared.errors import Refusal
from shared.messages.auth.audit import NOTE_FIELDS, Action, Audited, ListAuditEntries, RecordAuditEntry

Order = TypeVar("Order")
Reply = TypeVar("Reply")


class Audit:
    """Writes the audit.

    Who asked and from where, the message itself tells. Whom and what it was about, the handler finds out on its way,
    and says so: ``work.annotate(user_id=…, client_id=…, session_id=…)``, as ``NOTE_FIELDS`` has them. Only ids that
    auth made or found are noted: what a client has typed may be anything, a secret in the wrong field too.

    Args:
        entries: where.
    """

    def __init__(self, entries: AuditEntries) -> None:
        self._entries = entries

    def record(self, work: Work, action: Action, *, refusal: Refusal | None = None, **about: str | None) -> None:
        """Write an entry, which commits with the rest of the work.

        ``audited`` does this for whole handlers. By hand it is for what one message does besides, or to many.

        Args:
            work: what was asked, and what is filled.
            action: what was tried.
            refusal: why not, if not.
            about: what differs from what the handler has noted, under the same names.
        """
        notes = {**work.annotations, **about}
        if not notes.keys() <= NOTE_FIELDS:
            raise TypeError(f"the audit keeps no {', '.join(sorted(notes.keys() - NOTE_FIELDS))}")
        caller = work.caller
        entry = AuditEntry(
            id=work.new_id("auditentry"),
            at=work.now,
            action=action,
            outcome="done" if refusal is None else "refused",
            code=None if refusal is None else refusal.code,
            caller=caller.kind,
            caller_user_id=caller.user_id,
            user_id=notes.get("user_id", caller.user_id),
            client_id=notes.get("client_id"),
            session_id=notes.get("session_id"),
            identifier_id=notes.get("identifier_id"),
            client_ip=caller.client_ip,
            message_id=work.id,
            resource_id=notes.get("resource_id"),
        )
        self._add(entry, work)

    def keep(self, told: RecordAuditEntry, work: Work) -> None:
        """Write an entry of what was handled elsewhere.

        Args:
            told: what came of it.
            work: that message; its caller is whoever asked for what it tells of.
        """
        entry = AuditEntry(
            id=work.new_id("auditentry"),
            at=told.at,
            action=told.action,
            outcome="done" if told.refused_as is None else "refused",
            code=told.refused_as,
            caller=work.caller.kind,
            caller_user_id=work.caller.user_id,
            user_id=told.user_id,
            client_id=told.client_id,
            session_id=told.session_id,
            identifier_id=told.identifier_id,
            client_ip=work.caller.client_ip,
            message_id=told.message_id,
            resource_id=told.resource_id,
        )
        self._add(entry, work)

    def _add(self, entry: AuditEntry, work: Work) -> None:
        self._entries.add(entry, work)
        work.publish(Audited(key=entry.user_id or "", entry=entry.view()))

    async def page(self, query: ListAuditEntries) -> list[AuditEntry]:
        """The entries asked for, as ``AuditEntries.page`` says."""
        return await self._entries.page(query)


class WithAudit(Protocol):
    """What the handlers of auth work with, as far as the audit cares."""

    @property
    def audit(self) -> Audit:
        """Where it is recorded."""


Context = TypeVar("Context", bound=WithAudit)
Handler = Callable[[Order, Work, Context], Awaitable[Reply]]


def audited(action: Action) -> Callable[[Handler[Order, Context, Reply]], Handler[Order, Context, Reply]]:
    """Have it recorded what comes of a handler: done, or refused and why, at the commit too.

    Where one that is audited calls another, there is one entry, and its action is the inner one's, which knows best.
    """

    def wear(handler: Handler[Order, Context, Reply]) -> Handler[Order, Context, Reply]:
        @wraps(handler)
        async def wearing(order: Order, work: Work, auth: Context) -> Reply:
            work.on_outcome(partial(_conclude, auth.audit, work, action))
            return await handler(order, work, auth)

        return wearing

    return wear


def _conclude(audit: Audit, work: Work, action: Action, refusal: Refusal | None) -> None:
    audit.record(work, action, refusal=refusal)
