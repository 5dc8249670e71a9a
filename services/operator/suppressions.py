"""`nest suppressions`: which addresses get nothing but what is asked for at them, and how is that ended?"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from services.operator.client import Client
from services.operator.options import AsJson, Data, Yes, confirmed, said_in_words
from services.operator.tables import show

app = typer.Typer(no_args_is_help=True, help="See which addresses get no mail, and write to them again.")
COLUMNS: Final = {
    "since": "SINCE",
    "cause": "CAUSE",
    "template": "TEMPLATE",
    "reason": "WHAT WAS SAID",
    "delivery_id": "DELIVERY",
}
ALTHOUGH: Final = (
    "They called one of our mails spam. To write to them all the same harms how mail servers see all others of yours;"
    "\ndo it only if they have asked for it themselves.\nWrite to this address again?"
)


class Cause(StrEnum):
    """What can end mails to an address."""

    BOUNCE = "bounce"
    COMPLAINT = "complaint"


@app.command("list", epilog="Example:  [bold]nest suppressions list --cause bounce --since 2026-11-21[/bold]")
def list_suppressions(
    data: Data = Path(".nest"),
    *,
    to: Annotated[str | None, typer.Option(help="Only that of this address.")] = None,
    cause: Annotated[Cause | None, typer.Option(help="Only those for this.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Suppressed then or later, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Suppressed before, in UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 100,
    cursor: Annotated[str | None, typer.Option(help="After this delivery: the last of the page before.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the addresses that get no mail, by the mails that showed it. Which they are is kept as a hash, not shown."""
    asked = {
        "recipient": to,
        "cause": cause,
        "since": _moment(since),
        "until": _moment(until),
        "limit": limit,
        "cursor": cursor,
    }
    with said_in_words():
        named = {name: value for name, value in asked.items() if value is not None}
        answer = Client.of(data).call("list_suppressions", named)
        show(answer, answer["suppressions"], COLUMNS, as_json=as_json)


@app.command(
    epilog="Examples:  [bold]nest suppressions lift ada@example.com[/bold]   ·"
    "   [bold]nest suppressions lift --delivery delivery_…[/bold]"
)
def lift(
    address: Annotated[str | None, typer.Argument(help="Whom to write to again.")] = None,
    delivery: Annotated[str | None, typer.Option(help="Instead of the address: the mail that the list names.")] = None,
    data: Data = Path(".nest"),
    *,
    although_complained: Annotated[
        bool, typer.Option("--although-complained", help="Even if they called a mail spam, and want mails again.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send all mails to an address again, until it bounces or complains anew."""
    if (address is None) == (delivery is None):
        raise typer.BadParameter("give an address, or --delivery")
    with said_in_words():
        client = Client.of(data)
        if although_complained:
            confirmed(ALTHOUGH, yes=yes)
        named = {"delivery_id": delivery} if address is None else {"recipient": address}
        lifted = client.call("lift_suppression", {**named, "although_complained": although_complained})
        show(lifted, [lifted], COLUMNS, as_json=as_json)


def _moment(given: datetime | None) -> str | None:
    return None if given is None else given.replace(tzinfo=UTC).isoformat()
