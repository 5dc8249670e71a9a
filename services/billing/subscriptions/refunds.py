"""Refund of the payments of a cancelled duplicate subscription, and reversal of the credit that its end created.

Cancelling with proration and an invoice returns no money: it credits the customer's balance
(https://docs.stripe.com/billing/subscriptions/cancel). With a refund and that credit the customer would be paid twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import quote

from services.billing import metrics
from services.billing.stripe_api.calls import Calls, StripeRefused
from services.billing.stripe_api.idempotent_create import idempotent_create, key_of_generation
from services.billing.stripe_api.parsing import Json
from services.billing.subscriptions.models import Subscription
from shared.fault_points import fault_point
from shared.messages.mailer.mails import DuplicateVariables
from shared.money import format_amount
from shared.telemetry import log

ALREADY_REFUNDED: Final = "charge_already_refunded"
FAILED_REFUNDS: Final = frozenset({"failed", "canceled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnedMoney:
    """What happened to the payments for a cancelled duplicate.

    Attributes:
        refunded: returned to the payment method, in the currency's minor unit.
        credited: returned to the customer's balance, from which it had been paid.
        currency: ISO code in lower case; empty without an invoice.
        processing: whether a payment is still in progress. It is refunded once it has succeeded.
        unresolved: whether a payment could not be refunded.
    """

    refunded: int = 0
    credited: int = 0
    currency: str = ""
    processing: bool = False
    unresolved: bool = False

    @property
    def variables(self) -> DuplicateVariables:
        """What the mail to the person says about it."""
        amounts = {
            "refunded": format_amount(self.refunded, self.currency) if self.refunded else None,
            "credited": format_amount(self.credited, self.currency) if self.credited else None,
        }
        if self.unresolved:
            return DuplicateVariables(money="unresolved")
        if self.processing:
            return DuplicateVariables(money="refund_pending")
        if self.refunded or self.credited:
            return DuplicateVariables(money="refunded" if self.refunded else "credited", **amounts)
        return DuplicateVariables(money="nothing_paid")


async def refund_payments(duplicate: Subscription, calls: Calls, *, since: datetime | None = None) -> ReturnedMoney:
    """Refund the payments of a cancelled subscription and reverse the credit of its customer.

    Args:
        duplicate: the cancelled subscription.
        calls: to Stripe.
        since: creation of the subscription that was kept. Invoices from before were for time in which it was the only
            one, and are not refunded. None for all invoices.

    May be repeated at any time, even after a crash: refunds and reversals that exist are found again. Raises
    StripeUnavailable.
    """
    processing = unresolved = False
    refunded = credited = credit = 0
    customer_id, currency = "", ""
    params: Json = {"subscription": duplicate.stp_subscription_id}
    if since is not None:
        params["created"] = {"gte": int(since.timestamp())}
    # Each creation looks first, since a repeat may come days later, when Stripe has forgotten the idempotency keys.
    async for invoice in calls.pages("invoices", "/v1/invoices", params):
        if invoice["ending_balance"] is not None:
            # The amount that the invoice added to the customer's balance, or took from it.
            moved = invoice["starting_balance"] - invoice["ending_balance"]
            credit += moved
            credited += max(-moved, 0)
        customer_id, currency = invoice["customer"], invoice["currency"]
        of_invoice = {"invoice": invoice["id"], "expand": ["data.payment.payment_intent"]}
        async for invoice_payment in calls.pages("invoice_payments", "/v1/invoice_payments", of_invoice):
            if invoice_payment["status"] == "paid":
                if await _refund(duplicate, invoice_payment["payment"], calls):
                    refunded += invoice_payment["amount_paid"]
                else:
                    unresolved = True
            elif invoice_payment["status"] == "open":
                processing = processing or _is_processing(invoice_payment["payment"])
    if credit:
        await _reverse_credit(duplicate, customer_id, credit, currency, calls)
    return ReturnedMoney(
        refunded=refunded, credited=credited, currency=currency, processing=processing, unresolved=unresolved
    )


async def _refund(duplicate: Subscription, payment: Json, calls: Calls) -> bool:
    """Refund one payment, unless it is refunded already; returns False if it can't be refunded."""
    payment_type = payment["type"]
    if payment_type not in ("payment_intent", "charge"):
        # Money received outside of Stripe is returned outside of Stripe.
        report_not_refunded(duplicate, payment_type)
        return False
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
            return False
    return True


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
