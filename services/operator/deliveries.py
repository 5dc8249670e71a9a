"""`nest deliveries` and `nest suppressions`: sent mails and texts, and the suppression list."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import typer

from services.operator.client import Client
from services.operator.output import Limit, Since, Table, Until, Yes, columns, command, confirm, request_body

app = typer.Typer(no_args_is_help=True, help="Show sent mails and texts and their states.")
suppressions_app = typer.Typer(no_args_is_help=True, help="Show the suppression list, and remove addresses from it.")
DELIVERIES: Final = columns("created_at, medium, template, state, attempts, reason, message_id, id: DELIVERY")
SUPPRESSIONS: Final = columns("since, cause, template, reason, delivery_id")
COMPLAINT_WARNING: Final = (
    "The recipient reported one of our mails as spam. Further mails to this address lower your reputation with mail"
    " servers.\nContinue only if the recipient asked for mails again.\nSend mails to this address again?"
)
State = Literal["queued", "handed_over", "delivered", "bounced", "failed", "suppressed"]
Cursor = Annotated[str | None, typer.Option(help="Older entries: next_cursor of the previous page, see --json.")]


@command(app, "list", "nest deliveries list --to ada@example.com --state failed")
def list_deliveries(
    nest: Client,
    *,
    to: Annotated[str | None, typer.Option(help="Only to this address or phone number.")] = None,
    medium: Annotated[Literal["mail", "text"] | None, typer.Option(help="Only mails, or only texts.")] = None,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    template: Annotated[str | None, typer.Option(help="Only of this template: magic-link, login-code, …")] = None,
    client: Annotated[str | None, typer.Option(help="Only of the client with this ID.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Table:
    """List mails and texts, newest first. Their recipients are sealed and not shown."""
    body = request_body(
        recipient=to,
        medium=medium,
        state=state,
        template=template,
        client_id=client,
        since=since,
        until=until,
        limit=limit,
        cursor=cursor,
    )
    response = nest.call("list_deliveries", body)
    return Table(response, response["deliveries"], DELIVERIES)


@command(suppressions_app, "list", "nest suppressions list --cause bounce --since 2026-11-21")
def list_suppressions(
    nest: Client,
    *,
    to: Annotated[str | None, typer.Option(help="Only of this address.")] = None,
    cause: Annotated[Literal["bounce", "complaint"] | None, typer.Option(help="Only with this cause.")] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Table:
    """List suppressed addresses, each by the mail that bounced or was reported. Addresses are hashed and not shown."""
    body = request_body(recipient=to, cause=cause, since=since, until=until, limit=limit, cursor=cursor)
    response = nest.call("list_suppressions", body)
    return Table(response, response["suppressions"], SUPPRESSIONS)


@command(
    suppressions_app, "lift", "nest suppressions lift ada@example.com", "nest suppressions lift --delivery delivery_…"
)
def lift(
    nest: Client,
    address: Annotated[str | None, typer.Argument(help="Address to send mails to again.")] = None,
    delivery: Annotated[str | None, typer.Option(help="Delivery ID from the list, instead of the address.")] = None,
    *,
    although_complained: Annotated[
        bool, typer.Option("--although-complained", help="Even if the recipient reported a mail as spam.")
    ] = False,
    yes: Yes = False,
) -> Table:
    """Remove an address from the suppression list, until its next bounce or complaint."""
    if (address is None) == (delivery is None):
        raise typer.BadParameter("give an address, or --delivery")
    if although_complained:
        confirm(COMPLAINT_WARNING, yes=yes)
    body = request_body(recipient=address, delivery_id=delivery, although_complained=although_complained)
    response = nest.call("lift_suppression", body)
    return Table(response, [response], SUPPRESSIONS)
