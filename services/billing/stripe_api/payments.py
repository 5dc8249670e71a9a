"""How does one get from money to the person? Stripe tells no payment what it pays for; it is found step by step.

dispute → charge → payment intent → invoice payment → invoice → subscription → customer. Until 2025-03-31.basil an
invoice named its one payment intent; now it may have several, each tied to it by an invoice payment
(https://docs.stripe.com/changelog/basil/2025-03-31/add-support-for-multiple-partial-payments-on-invoices).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

from services.billing.stripe_api.calls import Calls, StripeRefused
from services.billing.stripe_api.models import StripeDispute, StripeInvoice, StripePayment
from services.billing.stripe_api.parsing import Json, dispute_of, invoice_of, payment_of

Lead = Literal["charge", "refund", "invoice", "invoice_payment"]
"""Objects that lead to payments."""


async def read_payment(intent_id: str, calls: Calls) -> StripePayment | None:
    """A payment intent as it is now, with the invoice it is for; None if this account, in this mode, never had it.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    path = f"/v1/payment_intents/{_quoted(intent_id)}"
    found = await _find("payment_intent", path, calls, expand=["customer", "latest_charge"])
    return None if found is None else await whole_payment(found, calls)


async def whole_payment(found: Json, calls: Calls) -> StripePayment:
    """A payment intent with the invoice it is for.

    Args:
        found: with ``customer`` and ``latest_charge`` expanded.
        calls: to the account.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    return payment_of(found, await _invoice(found["id"], calls))


async def read_dispute(dispute_id: str, calls: Calls) -> StripeDispute | None:
    """A dispute as it is now, with the charge it is about; None if this account, in this mode, never had it.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    found = await _find("dispute", f"/v1/disputes/{_quoted(dispute_id)}", calls, expand=["charge"])
    return None if found is None else dispute_of(found)


async def payments_of(lead: Lead, object_id: str, calls: Calls) -> list[str]:
    """The ids of the payment intents that an object is part of; none for what was paid without one.

    An invoice and its payments lead to all payments of it: a part that was paid changes what the others ask for, and
    Stripe has no event for that.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    if lead == "invoice":
        ties = calls.pages("invoice_payments", "/v1/invoice_payments", {"invoice": object_id})
        return sorted({intent async for tie in ties if (intent := _intent(tie)) is not None})
    found = await _find(lead, f"/v1/{lead}s/{_quoted(object_id)}", calls)
    if found is None:
        return []
    if lead == "invoice_payment":
        return await payments_of("invoice", found["invoice"], calls)
    return [] if found["payment_intent"] is None else [found["payment_intent"]]


async def _invoice(intent_id: str, calls: Calls) -> StripeInvoice | None:
    """The invoice that a payment intent is for: of several, which no subscription makes, the first."""
    params: Json = {
        "payment": {"type": "payment_intent", "payment_intent": intent_id},
        "expand": ["data.invoice"],
    }
    ties = [tie async for tie in calls.pages("invoice_payments", "/v1/invoice_payments", params)]
    return invoice_of(ties[-1]["invoice"]) if ties else None


async def _find(name: str, path: str, calls: Calls, *, expand: Sequence[str] = ()) -> Json | None:
    try:
        return await calls.get(name, path, {"expand": list(expand)} if expand else {})
    except StripeRefused as refused:
        if refused.code == "resource_missing":
            return None
        raise


def _intent(tie: Json) -> str | None:
    """The payment intent of an invoice payment; others are made of charges or of records of money got elsewhere."""
    intent: str | None = tie["payment"].get("payment_intent")
    return intent


def _quoted(identifier: str) -> str:
    return quote(identifier, safe="")
