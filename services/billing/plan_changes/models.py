"""Rules of plan changes: when a subscription is as ordered, and when its user keeps access."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

from services.billing.stripe_api.models import StripeSubscription
from services.billing.subscriptions.models import ENDED, AccessPolicy, Subscription

CancelNow = Literal["refused", "no_credit", "credit"]
"""Cancellations at once: refused, without money for the unused time, or with a credit for it on the customer's balance.
The next invoices of the customer use up the credit."""
Downgrade = Literal["period_end", "now"]
"""When a downgrade takes effect."""
_NOTHING_TO_KEEP: Final = frozenset({"incomplete", "unpaid", "paused"})
"""Statuses without access and without a paid period. Stripe changes nothing at the end of a period of such a
subscription but its invoices: it is cancelled at once (https://docs.stripe.com/billing/subscriptions/overview)."""


def cancels_at_once(stripe_subscription: StripeSubscription, at: Literal["period_end", "now"]) -> bool:
    """Whether an ordered cancellation takes effect at once."""
    return at == "now" or stripe_subscription.status in _NOTHING_TO_KEEP


def loses_access(stripe_subscription: StripeSubscription) -> bool:
    """Whether a cancellation at once ends a period that gives access."""
    return stripe_subscription.status not in _NOTHING_TO_KEEP


def is_cancelled(stripe_subscription: StripeSubscription, *, at_once: bool) -> bool:
    """Whether a subscription has ended or, unless it has to end at once, ends with its period."""
    return stripe_subscription.status in ENDED or (not at_once and stripe_subscription.ends_with_period)


def continues(stripe_subscription: StripeSubscription) -> bool:
    """Whether nothing ends a subscription or suspends its payments."""
    return (
        not is_planned_to_end(stripe_subscription)
        and stripe_subscription.status != "paused"
        and stripe_subscription.collection_paused is None
    )


def is_planned_to_end(stripe_subscription: StripeSubscription) -> bool:
    """Whether a cancellation or a schedule ends a subscription at any time."""
    dates = (stripe_subscription.cancel_at, stripe_subscription.schedule_ends_at)
    return stripe_subscription.cancel_at_period_end or any(each is not None for each in dates)


def access_ends_at(record: Subscription, policy: AccessPolicy) -> datetime | None:
    """When the access by a subscription ends or ended; None if it renews."""
    if record.ended:
        return record.ends_at
    return None if record.will_renew else record.access_ends_at(policy)
