"""Handlers that read the audit, and that add entries of other services to it."""

from __future__ import annotations

from services.auth.context import Auth
from shared.bus.work import Work
from shared.messages.auth.audit import AuditEntriesView, ListAuditEntries, RecordAuditEntry
from shared.paging import cursor_of


async def record_audit_entry(command: RecordAuditEntry, work: Work, auth: Auth) -> None:
    """Add the entry of an operator's command to another service, or of a query to auth."""
    auth.audit.record_for_service(command, work)


async def list_audit_entries(query: ListAuditEntries, work: Work, auth: Auth) -> AuditEntriesView:
    """List the entries that match the filters, newest first, with the cursor of the next page."""
    entries = await auth.audit_entries.page(query)
    page = entries[: query.limit]
    if page:
        # The entries are personal data, so reading them is audited under the user's ID.
        work.annotate(user_id=query.user_id)
    return AuditEntriesView(
        entries=tuple(page),
        next_cursor=cursor_of(page[-1].at, page[-1].id) if len(entries) > len(page) else None,
    )
