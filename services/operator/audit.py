"""`nest audit`: who has tried what, and what came of it?"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from services.operator.client import Client
from services.operator.options import AsJson, Data, examples, said_in_words
from services.operator.tables import show

app = typer.Typer(no_args_is_help=True, help="See who has tried what, and what came of it.")
COLUMNS: Final = {
    "at": "AT",
    "action": "ACTION",
    "outcome": "OUTCOME",
    "code": "CODE",
    "caller": "CALLER",
    "client_ip": "FROM",
    "user_id": "USER",
    "client_id": "CLIENT",
    "session_id": "SESSION",
    "resource_id": "RESOURCE",
    "id": "ENTRY",
}


class Outcome(StrEnum):
    """What can come of it."""

    DONE = "done"
    REFUSED = "refused"


@app.command("list", epilog=examples("nest audit list --user user_… --outcome refused"))
def list_entries(
    data: Data = Path(".nest"),
    *,
    user: Annotated[str | None, typer.Option(help="Only what was about this user's id.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this: log_in, refresh, revoke_sessions, …")] = None,
    outcome: Annotated[Outcome | None, typer.Option(help="Only what was done, or only what was refused.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Not before, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before, in UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="Older than this entry: the last one of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest entries of the audit, the newest first."""
    asked = {
        "user_id": user,
        "action": action,
        "outcome": outcome,
        "since": _moment(since),
        "until": _moment(until),
        "limit": limit,
        "cursor": cursor,
    }
    with said_in_words():
        answer = Client.of(data).call(
            "list_audit_entries", {name: value for name, value in asked.items() if value is not None}
        )
        show(answer, answer["entries"], COLUMNS, as_json=as_json)


def _moment(given: datetime | None) -> str | None:
    return None if given is None else given.replace(tzinfo=UTC).isoformat()
