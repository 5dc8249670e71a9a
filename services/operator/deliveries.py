"""`nest deliveries`: which mails and texts went out, and what became of them?"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from services.operator.client import Client
from services.operator.options import AsJson, Data, said_in_words
from services.operator.tables import show

app = typer.Typer(no_args_is_help=True, help="See which mails and texts went out, and what became of them.")
COLUMNS: Final = {
    "created_at": "ORDERED",
    "medium": "BY",
    "template": "TEMPLATE",
    "state": "STATE",
    "attempts": "TRIES",
    "reason": "WHAT WAS SAID",
    "message_id": "MESSAGE",
    "id": "DELIVERY",
}


class Medium(StrEnum):
    """What it is."""

    MAIL = "mail"
    TEXT = "text"


class State(StrEnum):
    """What can become of it."""

    QUEUED = "queued"
    HANDED_OVER = "handed_over"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    FAILED = "failed"
    SUPPRESSED = "suppressed"


@app.command("list", epilog="Example:  [bold]nest deliveries list --to ada@example.com --state failed[/bold]")
def list_deliveries(
    data: Data = Path(".nest"),
    *,
    to: Annotated[str | None, typer.Option(help="Only what went to this address or number.")] = None,
    medium: Annotated[Medium | None, typer.Option(help="Only mails, or only texts.")] = None,
    state: Annotated[State | None, typer.Option(help="Only those that this became of.")] = None,
    template: Annotated[str | None, typer.Option(help="Only these: magic-link, login-code, …")] = None,
    client: Annotated[str | None, typer.Option(help="Only those through this client.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Ordered then or later, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Ordered before, in UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="Older than this delivery: the last of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show mails and texts, the newest first. To whom they went is kept sealed, and not shown."""
    asked = {
        "recipient": to,
        "medium": medium,
        "state": state,
        "template": template,
        "client_id": client,
        "since": None if since is None else since.replace(tzinfo=UTC).isoformat(),
        "until": None if until is None else until.replace(tzinfo=UTC).isoformat(),
        "limit": limit,
        "cursor": cursor,
    }
    with said_in_words():
        named = {name: value for name, value in asked.items() if value is not None}
        answer = Client.of(data).call("list_deliveries", named)
        show(answer, answer["deliveries"], COLUMNS, as_json=as_json)
