"""Rules about the user to whom a Stripe customer belongs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from services.billing.stripe_api.models import StripeSubscription
from services.billing.subscriptions.models import Subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMapping:
    """The user to whom a payment provider's customer belongs.

    ``provider_type`` is ``stripe``, ``provider_value`` the customer's ID there; ``removed_at`` is None while it is
    valid.
    """

    id: str
    user_id: str
    provider_type: str
    provider_value: str
    created_at: datetime
    updated_at: datetime
    removed_at: datetime | None = None
    version: int = 1

    def moved(self, user_id: str, *, at: datetime) -> Self:
        """The mapping of the customer to another user."""
        return replace(self, user_id=user_id, updated_at=at)


def user_of_subscription(
    stripe_subscription: StripeSubscription, mapping: ProviderMapping | None, stored: Subscription | None
) -> str | None:
    """The user of a subscription: from Stripe's metadata, else from the customer's mapping, else as recorded before."""
    recorded = mapping or stored
    return (
        stripe_subscription.user_id
        or stripe_subscription.customer.user_id
        or (None if recorded is None else recorded.user_id)
    )
