"""How are Stripe's objects read? From its JSON, at the API version that ``calls.py`` pins, into ours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from services.billing.stripe_api.models import (
    StripeCustomer,
    StripeDispute,
    StripeInvoice,
    StripePayment,
    StripeSubscription,
)

Json = dict[str, Any]
DUPLICATE_COMMENT: Final = "Nest: duplicate of "
"""Written on a subscription that we cancel as a duplicate, before our id of the one that is kept."""
COUPON_COMMENT: Final = "Nest: a coupon is required"
"""Written on a subscription that we cancel because it lacks the coupon that every one needs."""


def subscription_of(found: Json, items: list[Json], *, overdue_since: datetime | None = None) -> StripeSubscription:
    """Ours of a subscription of Stripe's.

    Args:
        found: with ``customer`` and ``discounts`` expanded.
        items: all of its items, at least one; since 2025-03-31.basil the periods are there, and may differ.
        overdue_since: since when it has not been paid, for one that is ``past_due``.
    """
    details = found["cancellation_details"] or {}
    comment = details.get("comment") or ""
    return StripeSubscription(
        id=found["id"],
        customer=customer_of(found["customer"]),
        status=found["status"],
        product_id=items[0]["price"]["product"],
        user_id=found["metadata"].get("user_id") or None,
        trial_id=found["metadata"].get("trial_id") or None,
        created=moment(found["created"]),
        period_start=min(moment(item["current_period_start"]) for item in items),
        period_end=max(moment(item["current_period_end"]) for item in items),
        cancel_at=_moment_or_none(found["cancel_at"]),
        cancel_at_period_end=found["cancel_at_period_end"],
        canceled_at=_moment_or_none(found["canceled_at"]),
        ended_at=_moment_or_none(found["ended_at"]),
        trial_start=_moment_or_none(found["trial_start"]),
        trial_end=_moment_or_none(found["trial_end"]),
        coupons=frozenset(_coupon(discount) for discount in found["discounts"]),
        duplicate_of=comment.removeprefix(DUPLICATE_COMMENT) if comment.startswith(DUPLICATE_COMMENT) else None,
        livemode=found["livemode"],
        overdue_since=overdue_since,
        collection_paused=(found.get("pause_collection") or {}).get("behavior"),
        end_reason=_end_reason(comment, details.get("reason")),
    )


def customer_of(found: Json) -> StripeCustomer:
    """Ours of a customer of Stripe's, a deleted one included: of that only the id is left."""
    metadata = found.get("metadata") or {}
    return StripeCustomer(
        id=found["id"],
        email=found.get("email") or None,
        user_id=metadata.get("user_id") or None,
        deleted=found.get("deleted", False),
    )


def _end_reason(comment: str, reason: str | None) -> str | None:
    if comment.startswith(DUPLICATE_COMMENT):
        return "duplicate"
    return "coupon_missing" if comment == COUPON_COMMENT else reason


def _coupon(discount: Json) -> str:
    coupon = discount["source"]["coupon"]
    return str(coupon if isinstance(coupon, str) else coupon["id"])


def moment(seconds: int) -> datetime:
    """A time of Stripe's, which counts in whole Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def _moment_or_none(seconds: int | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


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
        attempted_at=moment(charge["created"] if charge else found["created"]),
        disputed=charge.get("disputed", False),
        user_id=found["metadata"].get("user_id") or None,
        invoice=invoice,
        created=moment(found["created"]),
        canceled_at=None if found["canceled_at"] is None else moment(found["canceled_at"]),
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
        respond_by=moment(due_by) if due_by else None,
        created=moment(found["created"]),
        livemode=found["livemode"],
    )
