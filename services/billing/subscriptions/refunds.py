"""Refund of the payments of a cancelled duplicate subscription, and reversal of the credit that its end created.

Cancelling with proration and an invoice returns no money: it credits the customer's balance
(https://docs.stripe.com/billing/subscriptions/cancel). With a refund and that credit the customer would be paid twice.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from services.billing import metrics
from services.billing.stripe_api.calls import Calls, StripeRefused
from services.billing.stripe_api.idempotent_create import idempotent_create, key_of_generation
from services.billing.stripe_api.parsing import Json
from services.billing.subscriptions.models import Subscription
from shared.fault_points import fault_point
from shared.telemetry import log

ALREADY_REFUNDED: Final = "charge_already_refunded"
FAILED_REFUNDS: Final = frozenset({"failed", "canceled"})


async def refund_payments(duplicate: Subscription, calls: Calls) -> bool:
    """Refund all payments of a cancelled subscription and reverse the credit of its customer.

    May be repeated at any time, even after a crash: refunds and reversals that exist are found again. Returns whether a
    payment is still processing, which can only be refunded once it has succeeded. Raises StripeUnavailable.
    """
    processing = False
    credit = 0
    customer_id, currency = "", ""
    # Each creation looks first, since a repeat may come days later, when Stripe has forgotten the idempotency keys.
    async for invoice in calls.pages("invoices", "/v1/invoices", {"subscription": duplicate.stp_subscription_id}):
        if invoice["ending_balance"] is not None:
            # The amount that the invoice added to the customer's balance, or took from it.
            credit += invoice["starting_balance"] - invoice["ending_balance"]
        customer_id, currency = invoice["customer"], invoice["currency"]
        params = {"invoice": invoice["id"], "expand": ["data.payment.payment_intent"]}
        async for invoice_payment in calls.pages("invoice_payments", "/v1/invoice_payments", params):
            if invoice_payment["status"] == "paid":
                await _refund(duplicate, invoice_payment["payment"], calls)
            elif invoice_payment["status"] == "open":
                processing = processing or _is_processing(invoice_payment["payment"])
    if credit:
        await _reverse_credit(duplicate, customer_id, credit, currency, calls)
    return processing


async def _refund(duplicate: Subscription, payment: Json, calls: Calls) -> None:
    payment_type = payment["type"]
    if payment_type not in ("payment_intent", "charge"):
        # Money received outside of Stripe is returned outside of Stripe.
        report_not_refunded(duplicate, payment_type)
        return
    payment_id = payment[payment_type] if isinstance(payment[payment_type], str) else payment[payment_type]["id"]

    async def find() -> str | None:
        async for refund in calls.pages("refunds", "/v1/refunds", {payment_type: payment_id}):
            ours = refund["metadata"].get("subscription_id") == duplicate.id
            if ours and refund["status"] not in FAILED_REFUNDS:
                return str(refund["id"])
        return None

    async def create(generation: int) -> str:
        params = {payment_type: payment_id, "reason": "duplicate", "metadata": {"subscription_id": duplicate.id}}
        key = key_of_generation(f"{duplicate.id}:refund:{payment_id}", generation)
        refund_id = str((await calls.post("refund", "/v1/refunds", params, key=key))["id"])
        fault_point("B1")
        return refund_id

    try:
        await idempotent_create(find=find, create=create, find_first=True)
    except StripeRefused as refused:
        if refused.code != ALREADY_REFUNDED:
            # Above all for a disputed payment, about which the bank decides.
            report_not_refunded(duplicate, refused.code)


async def _reverse_credit(duplicate: Subscription, customer_id: str, credit: int, currency: str, calls: Calls) -> None:
    path = f"/v1/customers/{quote(customer_id, safe='')}/balance_transactions"

    async def find() -> str | None:
        async for transaction in calls.pages("balance_transactions", path, {}):
            if (transaction["metadata"] or {}).get("subscription_id") == duplicate.id:
                return str(transaction["id"])
        return None

    async def create(generation: int) -> str:
        params = {
            # The balance is the customer's debt, so a credit is negative and its reversal positive.
            "amount": credit,
            "currency": currency,
            "description": "A subscription that was bought twice was refunded instead of credited.",
            "metadata": {"subscription_id": duplicate.id},
        }
        key = key_of_generation(f"{duplicate.id}:take-back-credit", generation)
        transaction_id = str((await calls.post("take_back_credit", path, params, key=key))["id"])
        fault_point("B1")
        return transaction_id

    try:
        await idempotent_create(find=find, create=create, find_first=True)
    except StripeRefused as refused:
        # A deleted customer has no balance.
        log.warning("credit of a duplicate not reversed", subscription=duplicate.id, code=refused.code)


def _is_processing(payment: Json) -> bool:
    intent = payment.get("payment_intent")
    return isinstance(intent, dict) and intent["status"] == "processing"


def report_not_refunded(duplicate: Subscription, reason: str) -> None:
    """Count and log for operators that a payment of a duplicate was not refunded."""
    metrics.NOT_REFUNDED.inc()
    log.error("payment of a duplicate not refunded", subscription=duplicate.id, reason=reason)
