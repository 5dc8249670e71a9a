"""Creation of a trial's subscription in Stripe, exactly once: the idempotency key is derived from the trial's ID."""

from __future__ import annotations

from datetime import datetime

from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.idempotent_create import idempotent_create, key_of_generation
from services.billing.trials.models import Trial
from shared.fault_points import fault_point


async def provision_subscription(trial: Trial, customer_id: str, *, price: str, stripe: Stripe, at: datetime) -> str:
    """Create a trial's subscription, or find that of an earlier attempt; return its ID.

    ``price`` applies after the trial.

    Raises:
        StripeRefused: Stripe does not sell this price to this customer.
        StripeUnavailable: Stripe is unavailable; the next attempt finds what this one created.
    """

    async def find() -> str | None:
        subscription_ids = await stripe.subscription_ids(customer_id, trial_id=trial.id)
        return subscription_ids[-1] if subscription_ids else None

    subscription_id = await idempotent_create(
        find=find,
        create=lambda generation: stripe.create_trial(
            customer_id=customer_id,
            price=price,
            user_id=trial.user_id,
            trial_id=trial.id,
            key=key_of_generation(f"{trial.id}:subscription", generation),
        ),
        find_first=trial.keys_expired(at),
    )
    fault_point("B1")
    return subscription_id
