"""How do operators read the audit? A page at a time, newest first."""

from __future__ import annotations

from services.auth.context import Auth
from shared.messages.audit import AuditEntriesView, ListAuditEntries
from shared.work import Work


async def list_audit_entries(query: ListAuditEntries, _work: Work, auth: Auth) -> AuditEntriesView:
    """What was tried, by the filters given, and where the next page begins."""
    entries = await auth.audit.page(query)
    page = entries[: query.limit]
    return AuditEntriesView(
        entries=tuple(entry.view() for entry in page),
        next_cursor=page[-1].id if len(entries) > len(page) else None,
    )
