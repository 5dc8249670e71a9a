"""Parsing of Stripe's JSON, at the API version pinned in ``calls.py``, into the models of this folder."""

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
from shared.messages.types import trimmed_address

Json = dict[str, Any]
DUPLICATE_COMMENT: Final = "Nest: duplicate of "
"""Cancellation comment of a duplicate that Nest cancelled; our ID of the subscription that was kept follows."""
COUPON_COMMENT: Final = "Nest: a coupon is required"
UNDONE_COMMENT: Final = "Nest: nobody redeemed the link of this trial"
"""Cancellation comment of a subscription that Nest cancelled because it lacks the required coupon."""


def parse_subscription(
    json: Json,
    items: list[Json],
    *,
    products: frozenset[str] = frozenset(),
    overdue_since: datetime | None = None,
) -> StripeSubscription:
    """Parse a subscription.

    Args:
        json: with ``customer`` and ``discounts`` expanded.
        items: all of its items, one at least. Since API version 2025-03-31.basil each item has its own period.
        products: those that Nest sells; empty for all.
        overdue_since: since when it is unpaid, if it is ``past_due``.
    """
    details = json["cancellation_details"] or {}
    comment = details.get("comment") or ""
    ours = [item for item in items if not products or item["price"]["product"] in products]
    counted = ours or items
    return StripeSubscription(
        id=json["id"],
        customer=parse_customer(json["customer"]),
        status=json["status"],
        product_id=counted[0]["price"]["product"],
        user_id=json["metadata"].get("user_id") or None,
        trial_id=json["metadata"].get("trial_id") or None,
        created=parse_time(json["created"]),
        period_start=min(parse_time(item["current_period_start"]) for item in counted),
        period_end=max(parse_time(item["current_period_end"]) for item in counted),
        cancel_at=_parse_optional_time(json["cancel_at"]),
        cancel_at_period_end=json["cancel_at_period_end"],
        canceled_at=_parse_optional_time(json["canceled_at"]),
        ended_at=_parse_optional_time(json["ended_at"]),
        trial_start=_parse_optional_time(json["trial_start"]),
        trial_end=_parse_optional_time(json["trial_end"]),
        coupons=frozenset(_coupon_id(discount) for discount in json["discounts"]),
        duplicate_of=comment.removeprefix(DUPLICATE_COMMENT) if comment.startswith(DUPLICATE_COMMENT) else None,
        livemode=json["livemode"],
        overdue_since=overdue_since,
        collection_paused=(json.get("pause_collection") or {}).get("behavior"),
        end_reason=_end_reason(comment, details.get("reason")),
        sold_by_nest=bool(ours),
        sold_by_others=len(ours) < len(items),
    )


def parse_customer(json: Json) -> StripeCustomer:
    """Parse a customer; Stripe returns only the ID of a deleted one."""
    metadata = json.get("metadata") or {}
    return StripeCustomer(
        id=json["id"],
        email=trimmed_address(json.get("email") or "") or None,
        user_id=metadata.get("user_id") or None,
        deleted=json.get("deleted", False),
    )


def parse_payment(json: Json, invoice: StripeInvoice | None) -> StripePayment:
    """Parse a payment intent with ``customer`` and ``latest_charge`` expanded, and the invoice that it pays.

    Since API version 2025-03-31.basil a payment intent does not name its invoice.
    """
    charge: Json = json["latest_charge"] or {}
    # Stripe removes the error when a later attempt succeeds.
    error: Json = json["last_payment_error"] or {}
    return StripePayment(
        id=json["id"],
        customer=None if json["customer"] is None else parse_customer(json["customer"]),
        status=json["status"],
        amount=json["amount"],
        amount_received=json["amount_received"],
        amount_refunded=charge.get("amount_refunded", 0),
        currency=json["currency"],
        charge_id=charge.get("id"),
        # Some errors have a type but no code.
        failure_code=error.get("code") or error.get("type"),
        decline_code=error.get("decline_code"),
        attempted_at=parse_time(charge["created"] if charge else json["created"]),
        disputed=charge.get("disputed", False),
        user_id=json["metadata"].get("user_id") or None,
        invoice=invoice,
        created=parse_time(json["created"]),
        canceled_at=_parse_optional_time(json["canceled_at"]),
        livemode=json["livemode"],
    )


def parse_invoice(json: Json, lines: list[Json]) -> StripeInvoice:
    """Parse an invoice, of a subscription or not; ``lines`` are those whose products matter."""
    details: Json = (json["parent"] or {}).get("subscription_details") or {}
    subscription = details.get("subscription")
    return StripeInvoice(
        id=json["id"],
        subscription_id=subscription["id"] if isinstance(subscription, dict) else subscription,
        user_id=(details.get("metadata") or {}).get("user_id") or None,
        renewal=json["billing_reason"] != "subscription_create",
        payment_link=json["hosted_invoice_url"] if json["status"] == "open" else None,
        products=frozenset(filter(None, map(_product_of_line, lines))),
    )


def parse_dispute(json: Json) -> StripeDispute:
    """Parse a dispute with ``charge`` expanded."""
    charge: Json = json["charge"]
    due_by = json["evidence_details"]["due_by"]
    return StripeDispute(
        id=json["id"],
        status=json["status"],
        reason=json["reason"],
        amount=json["amount"],
        currency=json["currency"],
        charge_id=charge["id"],
        customer_id=charge["customer"],
        payment_intent_id=json["payment_intent"] or charge["payment_intent"],
        # Stripe sends 0 if no response is possible.
        respond_by=parse_time(due_by) if due_by else None,
        created=parse_time(json["created"]),
        livemode=json["livemode"],
    )


def parse_time(seconds: int) -> datetime:
    """Parse one of Stripe's times, which are whole Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def _parse_optional_time(seconds: int | None) -> datetime | None:
    return None if seconds is None else parse_time(seconds)


def _end_reason(comment: str, reason: str | None) -> str | None:
    if comment.startswith(DUPLICATE_COMMENT):
        return "duplicate"
    if comment == UNDONE_COMMENT:
        return "trial_undone"
    return "coupon_missing" if comment == COUPON_COMMENT else reason


def _product_of_line(line: Json) -> str | None:
    """The product of an invoice line; None for an amount without a price."""
    product: str | None = ((line.get("pricing") or {}).get("price_details") or {}).get("product")
    return product


def _coupon_id(discount: Json) -> str:
    coupon = discount["source"]["coupon"]
    return str(coupon if isinstance(coupon, str) else coupon["id"])
