"""`nest stripe`: subscriptions, payments and disputes, and the Stripe runs that compare, repair, fetch and import."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import typer

from services.operator.client import Client
from services.operator.output import (
    TIME_FORMATS,
    AsJson,
    Limit,
    Since,
    Table,
    Yes,
    columns,
    command,
    confirm,
    print_json,
    request_body,
)
from services.operator.stripe_runs import run
from services.operator.stripe_setup import command as stripe_setup
from shared.money import format_amount

app = typer.Typer(
    no_args_is_help=True, help="Compare records with Stripe, repair them, fetch missed events, import an account."
)
app.command("setup", epilog=stripe_setup.epilog())(stripe_setup.setup)
RUNS: Final = columns("id: RUN, kind, status, differences, scheduled, started_at, finished_at")
SUBSCRIPTION: Final = columns(
    "id: SUBSCRIPTION, user_id, status, active, entitled, will_renew: RENEWS, start_date: FROM, end_date: UNTIL, "
    "cancel_at: ENDS, cancelled_at, overdue_since, grace_ends_at, collection_paused: PAUSED, trial_id, "
    "duplicate_of, other_subscription_ids: OTHERS, stp_subscription_id: STRIPE ID, stp_customer_id: CUSTOMER, "
    "read_at"
)
PAYMENTS: Final = columns(
    "created_at, money: AMOUNT, status, failure, refunded, disputed, user_id, id: PAYMENT, "
    "stp_payment_intent_id: STRIPE ID"
)
DISPUTES: Final = columns(
    "created_at, money: AMOUNT, status, reason, respond_by, user_id, id: DISPUTE, stp_dispute_id: STRIPE ID"
)
EVENTS: Final = columns(
    "made_at: TIME, type, outcome, received_at, handled_at, object_id: OBJECT, stp_event_id: STRIPE ID"
)
HISTORY: Final = columns("at, event, money: AMOUNT, status, details, object")
IMPORT_QUESTION: Final = (
    "Nest records everything that is in this Stripe account, and creates users for its customers. No mail is sent.\n"
    "Take it over?"
)

User = Annotated[str | None, typer.Option(help="Only of the user with this ID.")]
Status = Annotated[str | None, typer.Option(help="Only with this status, as Stripe names it.")]
Cursor = Annotated[str | None, typer.Option(help="Older entries: next_cursor of the previous page, see --json.")]
RunId = Annotated[str | None, typer.Option("--run", help="Resume or watch this run instead of starting one.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done; otherwise print its ID.")]
ChangedWithin = Annotated[
    int | None,
    typer.Option("--changed-within", min=1, max=720, help="Only objects with Stripe events in the last hours."),
]


@command(app, "subscription", "nest stripe subscription --user user_…", "nest stripe subscription sub_…")
def subscription(
    nest: Client,
    subscription_id: Annotated[
        str | None, typer.Argument(metavar="SUBSCRIPTION", help="ID of the subscription in Nest or Stripe.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="Or the ID of its user: the entitling subscription, else the latest.")
    ] = None,
) -> Table:
    """Show the record of a subscription."""
    if (subscription_id is None) == (user is None):
        raise typer.BadParameter("give either a subscription's ID or --user")
    response = nest.call("get_subscription", request_body(subscription_id=subscription_id, user_id=user))
    return Table(response, [response], SUBSCRIPTION)


@command(app, "payments", "nest stripe payments --user user_…", "nest stripe payments --status requires_payment_method")
def payments(
    nest: Client, *, user: User = None, status: Status = None, limit: Limit = 100, cursor: Cursor = None
) -> Table:
    """List payments, newest first."""
    response = nest.call("list_payments", request_body(user_id=user, status=status, limit=limit, cursor=cursor))
    rows = [
        {
            **each,
            "money": _money(each, "amount"),
            "refunded": _money(each, "amount_refunded") if each["amount_refunded"] else None,
            "failure": each["decline_code"] or each["failure_code"],
        }
        for each in response["payments"]
    ]
    return Table(response, rows, PAYMENTS)


@command(app, "disputes", "nest stripe disputes", "nest stripe disputes --status needs_response --json")
def disputes(
    nest: Client, *, user: User = None, status: Status = None, limit: Limit = 100, cursor: Cursor = None
) -> Table:
    """List disputes, newest first, with the deadline for a response in Stripe's dashboard."""
    response = nest.call("list_disputes", request_body(user_id=user, status=status, limit=limit, cursor=cursor))
    rows = [{**each, "money": _money(each, "amount")} for each in response["disputes"]]
    return Table(response, rows, DISPUTES)


@command(app, "history", "nest stripe history user_…")
def history(
    nest: Client,
    user: Annotated[str, typer.Argument(metavar="USER", help="ID of the user.")],
    *,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Table:
    """List what happened to a user's money and access, newest first."""
    response = nest.call("list_billing_history", request_body(user_id=user, limit=limit, cursor=cursor))
    rows = [
        {
            **each,
            "money": _moved(each),
            "details": _details(each),
            "object": each["payment_id"] or each["dispute_id"] or each["stp_credit_note_id"] or each["subscription_id"],
        }
        for each in response["entries"]
    ]
    return Table(response, rows, HISTORY)


@command(app, "events", "nest stripe events user_…")
def events(
    nest: Client,
    user: Annotated[str, typer.Argument(metavar="USER", help="ID of the user.")],
    *,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Table:
    """List Stripe's events about a user's subscriptions and payments, newest first, and what became of each."""
    response = nest.call("list_stripe_events", request_body(user_id=user, limit=limit, cursor=cursor))
    rows = [{**each, "outcome": each["outcome"] or "pending"} for each in response["events"]]
    return Table(response, rows, EVENTS)


@command(app, "verify", "nest stripe verify", "nest stripe verify --changed-within 24")
def verify(
    nest: Client,
    *,
    changed_within: ChangedWithin = None,
    run_id: RunId = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Compare every customer, subscription, trial, payment and dispute with Stripe.

    The exit code is 1 if anything differs.
    """
    body = request_body(repair=False, changed_within_hours=changed_within)
    run(nest, "reconcile_subscriptions", body, run_id, wait=wait, as_json=as_json)


@command(app, "reconcile", "nest stripe reconcile")
def reconcile(
    nest: Client,
    *,
    changed_within: ChangedWithin = None,
    run_id: RunId = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Compare, repair what differs the way a webhook would, and compare it again.

    The exit code is 1 if a difference remains.
    """
    body = request_body(changed_within_hours=changed_within)
    run(nest, "reconcile_subscriptions", body, run_id, wait=wait, as_json=as_json)


@command(app, "sweep", "nest stripe sweep", "nest stripe sweep --days 3")
def sweep(
    nest: Client,
    *,
    days: Annotated[int, typer.Option(min=1, max=30, help="How far back; Stripe keeps events for 30 days.")] = 30,
    run_id: RunId = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Fetch the events that Stripe could not deliver. An event that was delivered meanwhile takes effect once."""
    run(nest, "sweep_stripe_events", {"days": days}, run_id, wait=wait, as_json=as_json)


@command(
    app, "replay", "nest stripe replay evt_1", "nest stripe replay --type 'customer.subscription.*' --since 2026-11-18"
)
def replay(
    nest: Client,
    event_ids: Annotated[
        list[str] | None, typer.Argument(help="IDs of events, evt_…; or select by --type, --since, --until.")
    ] = None,
    *,
    types: Annotated[list[str] | None, typer.Option("--type", help="Type of events; repeat it for several.")] = None,
    since: Since = None,
    until: Annotated[
        datetime | None, typer.Option(formats=TIME_FORMATS, metavar="TIME", help="Not after this time, UTC.")
    ] = None,
    kept: Annotated[
        bool, typer.Option("--kept", help="Select from the event rows that Nest stored, not from Stripe's list.")
    ] = False,
    run_id: RunId = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Handle events again, also those that were handled before."""
    if run_id is None and not (event_ids or types or since):
        raise typer.BadParameter("which events? Give their IDs, --type or --since")
    body = request_body(event_ids=event_ids or [], types=types or [], kept=kept, since=since, until=until)
    run(nest, "replay_stripe_events", body, run_id, wait=wait, as_json=as_json)


@command(app, "import", "nest stripe import")
def import_account(
    nest: Client, *, run_id: RunId = None, wait: Wait = True, yes: Yes = False, as_json: AsJson = False
) -> None:
    """Import the customers, subscriptions and payments of an existing Stripe account. Sends no mail."""
    if run_id is None:
        confirm(IMPORT_QUESTION, yes=yes)
    run(nest, "import_stripe_account", {}, run_id, wait=wait, as_json=as_json)


@command(app, "runs", "nest stripe runs")
def list_runs(nest: Client) -> Table:
    """List the latest runs, also the scheduled ones."""
    response = nest.call("list_stripe_runs", {})
    return Table(response, response["runs"], RUNS)


@command(app, "stop", "nest stripe stop striperun_…")
def stop(
    nest: Client,
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="ID of the run.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Stop a run; its command resumes it with --run."""
    response = nest.call("stop_stripe_run", {"run_id": run_id})
    if as_json:
        print_json(response)
    else:
        typer.echo(f"{response['id']} {response['status']}")


def _moved(entry: dict[str, Any]) -> str | None:
    """The money of an entry of the history: refunded, moved for a dispute, or paid."""
    if entry["funds"] is not None:
        return _money(entry, "funds", "funds_currency")
    field = "amount" if entry["amount_refunded"] is None else "amount_refunded"
    return None if entry[field] is None else _money(entry, field)


def _details(entry: dict[str, Any]) -> str | None:
    """Why it happened, when it takes effect, or the prices and quantities of the plan before and after."""
    if entry["after"]:
        plans = (entry["before"], entry["after"])
        return " -> ".join(
            ", ".join(f"{each['quantity'] or 'metered'} x {each['price_id']}" for each in plan) for plan in plans
        )
    details: str | None = (
        entry["reason"] or entry["decline"] or entry["failure"] or entry["ends_at"] or entry["renews_at"]
    )
    return details


def _money(row: dict[str, Any], field: str, currency: str = "currency") -> str:
    return format_amount(row[field], row[currency])
