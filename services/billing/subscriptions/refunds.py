"""How is given back what was paid on a duplicate subscription? Each payment is refunded, and the credit taken back.

Cancelling with proration and an invoice gives no money back, only a credit to the customer's balance
(https://docs.stripe.com/billing/subscriptions/cancel): whoever got the money *and* kept the credit would be paid twice.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from services.billing import metrics
from services.billing.stripe_api.calls import Calls, StripeRefused
from services.billing.stripe_api.idempotent_create import generation_of, once
from services.billing.stripe_api.parsing import Json
from services.billing.subscriptions.models import Subscription
from shared.fault_points import fault_point
from shared.telemetry import log

REFUNDED_BEFORE: Final = "charge_already_refunded"
CAME_TO_NOTHING: Final = frozenset({"failed", "canceled"})


async def give_back(duplicate: Subscription, calls: Calls) -> bool:
    """Refund all that was paid on a subscription that is over, and take back the credit that its end made.

    May be repeated at any time, after a crash at any point: what was given back is found again.

    Returns:
        Whether a payment is still under way, which can be given back only once it has come.

    Raises:
        StripeUnavailable: Stripe could not be reached.
    """
    under_way = False
    credit = 0
    customer_id, currency = "", ""
    # Every try looks first: a repeat may come days later, when the keys of the first one are forgotten.
    async for invoice in calls.pages("invoices", "/v1/invoices", {"subscription": duplicate.stp_subscription_id}):
        if invoice["ending_balance"] is not None:
            # What an invoice gave to the balance, or took from it.
            credit += invoice["starting_balance"] - invoice["ending_balance"]
        customer_id, currency = invoice["customer"], invoice["currency"]
        wanted = {"invoice": invoice["id"], "expand": ["data.payment.payment_intent"]}
        async for tie in calls.pages("invoice_payments", "/v1/invoice_payments", wanted):
            if tie["status"] == "paid":
                await _refund(duplicate, tie["payment"], calls)
            elif tie["status"] == "open":
                under_way = under_way or _processing(tie["payment"])
    if credit:
        await _take_back(duplicate, customer_id, credit, currency, calls)
    return under_way


async def _refund(duplicate: Subscription, payment: Json, calls: Calls) -> None:
    kind = payment["type"]
    if kind not in ("payment_intent", "charge"):
        # Money that came outside of Stripe goes back outside of it.
        _not_refunded(duplicate, kind)
        return
    paid_by = payment[kind] if isinstance(payment[kind], str) else payment[kind]["id"]

    async def find() -> str | None:
        async for refund in calls.pages("refunds", "/v1/refunds", {kind: paid_by}):
            ours = refund["metadata"].get("subscription_id") == duplicate.id
            if ours and refund["status"] not in CAME_TO_NOTHING:
                return str(refund["id"])
        return None

    async def create(generation: int) -> str:
        params = {kind: paid_by, "reason": "duplicate", "metadata": {"subscription_id": duplicate.id}}
        key = generation_of(f"{duplicate.id}:refund:{paid_by}", generation)
        made = str((await calls.post("refund", "/v1/refunds", params, key=key))["id"])
        fault_point("B1")
        return made

    try:
        await once(find=find, create=create, look_first=True)
    except StripeRefused as refused:
        if refused.code != REFUNDED_BEFORE:
            # Disputed, above all: then the bank decides about the money.
            _not_refunded(duplicate, refused.code)


async def _take_back(duplicate: Subscription, customer_id: str, credit: int, currency: str, calls: Calls) -> None:
    path = f"/v1/customers/{quote(customer_id, safe='')}/balance_transactions"

    async def find() -> str | None:
        async for entry in calls.pages("balance_transactions", path, {}):
            if (entry["metadata"] or {}).get("subscription_id") == duplicate.id:
                return str(entry["id"])
        return None

    async def create(generation: int) -> str:
        params = {
            # The balance is what a customer owes, so a credit is below zero.
            "amount": credit,
            "currency": currency,
            "description": "A subscription that was bought twice was refunded instead of credited.",
            "metadata": {"subscription_id": duplicate.id},
        }
        key = generation_of(f"{duplicate.id}:take-back-credit", generation)
        made = str((await calls.post("take_back_credit", path, params, key=key))["id"])
        fault_point("B1")
        return made

    try:
        await once(find=find, create=create, look_first=True)
    except StripeRefused as refused:
        # A deleted customer has no balance any more.
        log.warning("credit of a duplicate not taken back", subscription=duplicate.id, code=refused.code)


def _processing(payment: Json) -> bool:
    intent = payment.get("payment_intent")
    return isinstance(intent, dict) and intent["status"] == "processing"


def _not_refunded(duplicate: Subscription, why: str) -> None:
    metrics.NOT_REFUNDED.inc()
    log.error("payment of a duplicate not refunded", subscription=duplicate.id, reason=why)
