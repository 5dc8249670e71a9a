"""Pages of money: payments, disputes, and the record of a subscription."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.console.calls import CallRefused
from services.gateway.console.lists import TONES, Column, Filter, ListPage, Row, explained
from services.gateway.console.pages import Link, PageTable, Visit
from services.gateway.responses import HttpResponse
from shared.money import format_amount

PAYMENTS: Final = PageTable(Link("Stripe", "Payments", "/console/payments"))
DISPUTES: Final = PageTable(Link("Stripe", "Disputes", "/console/disputes"))
SUBSCRIPTIONS: Final = PageTable(Link("Stripe", "Subscriptions", "/console/subscriptions"))
PAYMENT_STATUSES: Final = (
    *("succeeded", "requires_payment_method", "requires_action", "requires_confirmation", "requires_capture"),
    *("processing", "canceled"),
)
DISPUTE_STATUSES: Final = (
    *("needs_response", "under_review", "won", "lost", "warning_needs_response", "warning_under_review"),
    *("warning_closed", "prevented"),
)
PERSON: Final = "/console/people/{}"
PAYMENT_LIST: Final = ListPage(
    title="Payments",
    intro="Payments as recorded from Stripe, newest first.",
    method="list_payments",
    entries="payments",
    columns=(
        Column("Created", "created_at", "time"),
        Column("Amount", lambda row: format_amount(row["amount"], row["currency"]), "number"),
        Column("Status", "status", "state"),
        Column("Failure", lambda row: row["decline_code"] or row["failure_code"]),
        Column("Refunded", lambda row: _part(row, "amount_refunded"), "number"),
        Column("Disputed", lambda row: "yes" if row["disputed"] else None),
        Column("User", "user_id", "code", PERSON),
        Column("Stripe ID", "stp_payment_intent_id", "code"),
    ),
    filters=(
        Filter("user_id", "User ID", hint="user_…"),
        Filter("status", "Status", "choice", PAYMENT_STATUSES),
    ),
    empty="No payment yet",
    empty_hint="A payment appears here within seconds of Stripe's event.",
)
DISPUTE_LIST: Final = ListPage(
    title="Disputes",
    intro="Chargebacks and inquiries of banks, newest first. Answer them in Stripe's dashboard before the deadline.",
    method="list_disputes",
    entries="disputes",
    columns=(
        Column("Created", "created_at", "time"),
        Column("Amount", lambda row: format_amount(row["amount"], row["currency"]), "number"),
        Column("Status", "status", "state"),
        Column("Reason", lambda row: row["reason"].replace("_", " ")),
        Column("Respond by", "respond_by", "time"),
        Column("User", "user_id", "code", PERSON),
        Column("Stripe ID", "stp_dispute_id", "code"),
    ),
    filters=(
        Filter("user_id", "User ID", hint="user_…"),
        Filter("status", "Status", "choice", DISPUTE_STATUSES),
    ),
    empty="No dispute",
    empty_hint="If a payer asks the bank for the money back, the dispute appears here.",
)


@PAYMENTS.page("/console/payments")
async def payments(visit: Visit) -> HttpResponse:
    """The payments."""
    return await PAYMENT_LIST.show(visit)


@DISPUTES.page("/console/disputes")
async def disputes(visit: Visit) -> HttpResponse:
    """The disputes."""
    return await DISPUTE_LIST.show(visit)


@SUBSCRIPTIONS.page("/console/subscriptions")
async def subscriptions(visit: Visit) -> HttpResponse:
    """The record of one subscription, by its ID in Nest or Stripe, or by its user."""
    searched = visit.query.get("id", "").strip()
    record: dict[str, Any] | None = None
    problem = ""
    if searched:
        field = "user_id" if searched.startswith("user_") else "subscription_id"
        try:
            record = await visit.call("get_subscription", **{field: searched})
        except CallRefused as refused:
            problem = explained(visit, refused)
    return visit.page("subscriptions.html", searched=searched, record=record, problem=problem, tones=TONES)


def _part(row: Row, field: str) -> str | None:
    return format_amount(row[field], row["currency"]) if row[field] else None
