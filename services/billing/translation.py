"""How are Stripe's objects read? From its JSON, at the API version that ``stripe.py`` pins, into ours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from services.billing.models.stripe_objects import StripeCustomer, StripeSubscription

Json = dict[str, Any]
DUPLICATE_COMMENT: Final = "Nest: duplicate of "
"""Written on a subscription that we cancel as a duplicate, before our id of the one that is kept."""


def subscription_of(found: Json, items: list[Json]) -> StripeSubscription:
    """Ours of a subscription of Stripe's.

    Args:
        found: with ``customer`` and ``discounts`` expanded.
        items: all of its items, at least one; since 2025-03-31.basil the periods are there, and may differ.
    """
    comment = (found["cancellation_details"] or {}).get("comment") or ""
    return StripeSubscription(
        id=found["id"],
        customer=customer_of(found["customer"]),
        status=found["status"],
        product_id=items[0]["price"]["product"],
        user_id=found["metadata"].get("user_id") or None,
        trial_id=found["metadata"].get("trial_id") or None,
        created=_moment(found["created"]),
        period_start=min(_moment(item["current_period_start"]) for item in items),
        period_end=max(_moment(item["current_period_end"]) for item in items),
        cancel_at=_moment_or_none(found["cancel_at"]),
        cancel_at_period_end=found["cancel_at_period_end"],
        canceled_at=_moment_or_none(found["canceled_at"]),
        ended_at=_moment_or_none(found["ended_at"]),
        trial_start=_moment_or_none(found["trial_start"]),
        trial_end=_moment_or_none(found["trial_end"]),
        coupons=frozenset(_coupon(discount) for discount in found["discounts"]),
        duplicate_of=comment.removeprefix(DUPLICATE_COMMENT) if comment.startswith(DUPLICATE_COMMENT) else None,
        livemode=found["livemode"],
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


def _coupon(discount: Json) -> str:
    coupon = discount["source"]["coupon"]
    return str(coupon if isinstance(coupon, str) else coupon["id"])


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _moment_or_none(seconds: int | None) -> datetime | None:
    return None if seconds is None else _moment(seconds)
