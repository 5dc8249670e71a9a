"""How do operators read the audit, and how does it learn of what is done elsewhere?"""

from __future__ import annotations

from services.auth.context import Auth
from shared.bus.work import Work
from shared.messages.auth.audit import AuditEntriesView, ListAuditEntries, RecordAuditEntry


async def record_audit_entry(command: RecordAuditEntry, work: Work, auth: Auth) -> None:
    """Keep what came of an operator's order to another service, or of a question to auth."""
    auth.audit.keep(command, work)


async def list_audit_entries(query: ListAuditEntries, work: Work, auth: Auth) -> AuditEntriesView:
    """What was tried, by the filters given, and where the next page begins."""
    entries = await auth.audit.page(query)
    page = entries[: query.limit]
    if page:
        # Where and when somebody logs in is theirs: who looks at that is looked at too.
        work.annotate(user_id=query.user_id)
    return AuditEntriesView(
        entries=tuple(entry.view() for entry in page),
        next_cursor=page[-1].id if len(entries) > len(page) else None,
    )
