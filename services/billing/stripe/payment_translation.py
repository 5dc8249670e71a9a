"""How do Stripe's payment intents, invoices and disputes, read at the pinned version, become ours?"""

from __future__ import annotations

from datetime import UTC, datetime

from services.billing.models.stripe_payments import StripeDispute, StripeInvoice, StripePayment
from services.billing.stripe.translation import Json, customer_of


def payment_of(found: Json, invoice: StripeInvoice | None) -> StripePayment:
    """Ours of a payment intent.

    Args:
        found: with ``customer`` and ``latest_charge`` expanded.
        invoice: what it is for; no payment intent names its invoice since 2025-03-31.basil.
    """
    charge: Json = found["latest_charge"] or {}
    # Stripe takes the error away when a later attempt succeeds.
    error: Json = found["last_payment_error"] or {}
    return StripePayment(
        id=found["id"],
        customer=None if found["customer"] is None else customer_of(found["customer"]),
        status=found["status"],
        amount=found["amount"],
        amount_received=found["amount_received"],
        amount_refunded=charge.get("amount_refunded", 0),
        currency=found["currency"],
        charge_id=charge.get("id"),
        # Some errors have a type and no code.
        failure_code=error.get("code") or error.get("type"),
        decline_code=error.get("decline_code"),
        attempted_at=_moment(charge["created"] if charge else found["created"]),
        disputed=charge.get("disputed", False),
        user_id=found["metadata"].get("user_id") or None,
        invoice=invoice,
        created=_moment(found["created"]),
        canceled_at=None if found["canceled_at"] is None else _moment(found["canceled_at"]),
        livemode=found["livemode"],
    )


def invoice_of(found: Json) -> StripeInvoice:
    """Ours of an invoice, of a subscription or of something else."""
    details: Json = (found["parent"] or {}).get("subscription_details") or {}
    subscription = details.get("subscription")
    return StripeInvoice(
        id=found["id"],
        subscription_id=subscription["id"] if isinstance(subscription, dict) else subscription,
        user_id=(details.get("metadata") or {}).get("user_id") or None,
        renewal=found["billing_reason"] != "subscription_create",
        payment_link=found["hosted_invoice_url"] if found["status"] == "open" else None,
    )


def dispute_of(found: Json) -> StripeDispute:
    """Ours of a dispute.

    Args:
        found: with ``charge`` expanded.
    """
    charge: Json = found["charge"]
    due_by = found["evidence_details"]["due_by"]
    return StripeDispute(
        id=found["id"],
        status=found["status"],
        reason=found["reason"],
        amount=found["amount"],
        currency=found["currency"],
        charge_id=charge["id"],
        customer_id=charge["customer"],
        payment_intent_id=found["payment_intent"] or charge["payment_intent"],
        # Stripe says 0 where no answer is possible.
        respond_by=_moment(due_by) if due_by else None,
        created=_moment(found["created"]),
        livemode=found["livemode"],
    )


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
