"""Page of the audit: requests, changes and refusals."""

from __future__ import annotations

from typing import Final, get_args

from services.gateway.console.deliveries import PERIOD
from services.gateway.console.lists import Column, Filter, ListPage, Row
from services.gateway.console.pages import Link, PageTable, Visit
from services.gateway.responses import HttpResponse
from shared.messages.auth.audit import Action, AuditOutcome

AUDIT: Final = PageTable(Link("Operation", "Audit", "/console/audit"))


def outcome(row: Row) -> str:
    """The outcome of an entry, with the number of requests that it stands for."""
    text = row["code"] or row["outcome"]
    return text if row["count"] == 1 else f"{text}, {row['count']:,} times"


def caller(row: Row) -> str:
    """Who called, and from where."""
    name = row["key_name"] or row["caller_user_id"] or row["caller"]
    return f"{name} from {row['client_ip']}" if row["client_ip"] else str(name)


AUDIT_LIST: Final = ListPage(
    title="Audit",
    intro="Requests, changes and refusals, newest first. Entries name people by ID only.",
    method="list_audit_entries",
    entries="entries",
    columns=(
        Column("At", "at", "time"),
        Column("Action", "action"),
        Column("Outcome", outcome),
        Column("Caller", caller, "long"),
        Column("User", "user_id", "code", "/console/people/{}"),
        Column("Client", "client_id", "code", "/console/clients/{}"),
        Column("Object", lambda row: row["resource_id"] or row["session_id"] or row["identifier_id"], "code"),
    ),
    filters=(
        Filter("user_id", "User ID", hint="user_…"),
        Filter("action", "Action", "choice", sorted(get_args(Action))),
        Filter("outcome", "Outcome", "choice", get_args(AuditOutcome)),
        *PERIOD,
    ),
    empty="No entry yet",
    empty_hint="The first login or change makes one.",
)


@AUDIT.page("/console/audit")
async def audit(visit: Visit) -> HttpResponse:
    """The audit entries."""
    return await AUDIT_LIST.show(visit)
