"""`nest audit`: audit entries of requests, changes and refusals."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import typer

from services.operator.client import Client
from services.operator.output import Limit, Since, Table, Until, columns, command, request_body

app = typer.Typer(no_args_is_help=True, help="Show audit entries: requests, changes and refusals.")
COLUMNS: Final = columns(
    "at, action, outcome, code, count, caller, key_name: KEY, client_ip, "
    "user_id, client_id, session_id, resource_id, id: ENTRY"
)


@command(app, "list", "nest audit list --user user_… --outcome refused")
def list_entries(
    nest: Client,
    *,
    user: Annotated[str | None, typer.Option(help="Only entries about the user with this ID.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action: log_in, refresh, revoke_sessions, …")] = None,
    outcome: Annotated[Literal["done", "refused"] | None, typer.Option(help="Only this outcome.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    cursor: Annotated[
        str | None, typer.Option(help="Older entries: next_cursor of the previous page, see --json.")
    ] = None,
) -> Table:
    """List audit entries, newest first."""
    body = request_body(
        user_id=user, action=action, outcome=outcome, since=since, until=until, limit=limit, cursor=cursor
    )
    response = nest.call("list_audit_entries", body)
    return Table(response, response["entries"], COLUMNS)
