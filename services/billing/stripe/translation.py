"""How are Stripe's objects read? From its JSON, at the API version that ``calls.py`` pins, into ours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from services.billing.models.stripe_objects import StripeCustomer, StripeSubscription

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
