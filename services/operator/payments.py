"""`nest stripe subscription`, `payments`, `disputes`: what has somebody subscribed to, paid, and taken back?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.options import AsJson, Data, examples, said_in_words
from services.operator.tables import show

app = typer.Typer()
SUBSCRIPTION: Final = {
    "id": "SUBSCRIPTION",
    "user_id": "USER",
    "status": "STATUS",
    "active": "ACTIVE",
    "entitled": "ENTITLED",
    "will_renew": "RENEWS",
    "start_date": "FROM",
    "end_date": "UNTIL",
    "cancel_at": "ENDS",
    "cancelled_at": "CANCELLED",
    "overdue_since": "OVERDUE SINCE",
    "grace_ends_at": "GRACE ENDS",
    "collection_paused": "PAUSED",
    "trial_id": "TRIAL",
    "duplicate_of": "DUPLICATE OF",
    "other_subscription_ids": "OTHERS",
    "stp_subscription_id": "IN STRIPE",
    "stp_customer_id": "CUSTOMER",
    "read_at": "READ",
}
PAYMENTS: Final = {
    "created_at": "MADE",
    "shown": "AMOUNT",
    "status": "STATUS",
    "why": "WHY NOT",
    "refunded": "REFUNDED",
    "disputed": "DISPUTED",
    "user_id": "USER",
    "id": "PAYMENT",
    "stp_payment_intent_id": "IN STRIPE",
}
DISPUTES: Final = {
    "created_at": "MADE",
    "shown": "AMOUNT",
    "status": "STATUS",
    "reason": "REASON",
    "respond_by": "RESPOND BY",
    "user_id": "USER",
    "id": "DISPUTE",
    "stp_dispute_id": "IN STRIPE",
}

User = Annotated[str | None, typer.Option(help="Only this user's, by the user's id.")]
Status = Annotated[str | None, typer.Option(help="Only those of this status, in Stripe's words.")]
Limit = Annotated[int, typer.Option(min=1, max=500, help="How many.")]
Cursor = Annotated[str | None, typer.Option(help="Older ones: next_cursor of the page before, as --json shows it.")]


@app.command(epilog=examples("nest stripe subscription --user user_…", "nest stripe subscription sub_…"))
def subscription(
    subscription_id: Annotated[
        str | None, typer.Argument(metavar="SUBSCRIPTION", help="Its id, Nest's or Stripe's.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Or whose it is: the one that counts, else the latest.")] = None,
    data: Data = Path(".nest"),
    *,
    as_json: AsJson = False,
) -> None:
    """Show a subscription as Nest holds it."""
    if (subscription_id is None) == (user is None):
        raise typer.BadParameter("give a subscription's id, or a user's with --user")
    asked = {"subscription_id": subscription_id} if user is None else {"user_id": user}
    with said_in_words():
        answer = Client.of(data).call("get_subscription", asked)
        show(answer, [answer], SUBSCRIPTION, as_json=as_json)


@app.command(
    epilog=examples("nest stripe payments --user user_…", "nest stripe payments --status requires_payment_method")
)
def payments(
    data: Data = Path(".nest"),
    *,
    user: User = None,
    status: Status = None,
    limit: Limit = 100,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """Show payments, the newest first."""
    with said_in_words():
        answer = Client.of(data).call("list_payments", _asked(user, status, limit, cursor))
        rows = [
            {
                **each,
                "shown": _amount(each, "amount"),
                "refunded": _amount(each, "amount_refunded") if each["amount_refunded"] else None,
                "why": each["decline_code"] or each["failure_code"],
            }
            for each in answer["payments"]
        ]
        show(answer, rows, PAYMENTS, as_json=as_json)


@app.command(epilog=examples("nest stripe disputes", "nest stripe disputes --status needs_response --json"))
def disputes(
    data: Data = Path(".nest"),
    *,
    user: User = None,
    status: Status = None,
    limit: Limit = 100,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """Show disputes, the newest first, and until when each can be answered in Stripe's dashboard."""
    with said_in_words():
        answer = Client.of(data).call("list_disputes", _asked(user, status, limit, cursor))
        rows = [{**each, "shown": _amount(each, "amount")} for each in answer["disputes"]]
        show(answer, rows, DISPUTES, as_json=as_json)


def _asked(user: str | None, status: str | None, limit: int, cursor: str | None) -> dict[str, Any]:
    asked = {"user_id": user, "status": status, "limit": limit, "cursor": cursor}
    return {name: value for name, value in asked.items() if value is not None}


def _amount(row: dict[str, Any], field: str) -> str:
    # Here, so that `nest --help` needs not wait for it.
    from services.billing.payments.models import format_amount  # noqa: PLC0415

    return format_amount(row[field], row["currency"])
