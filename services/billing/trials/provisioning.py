"""Creation of a trial's customer and subscription in Stripe, each exactly once.

The idempotency keys are derived from the trial's ID.
"""

from __future__ import annotations

from datetime import datetime

from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.idempotent_create import idempotent_create, key_of_generation
from services.billing.trials.models import Trial
from shared.fault_points import fault_point


async def provision_customer(trial: Trial, email: str, *, stripe: Stripe, at: datetime) -> str:
    """Return the ID of a trial's customer: the user's own, that of an earlier attempt, or a new one.

    ``email`` must be the same at every attempt.

    Raises:
        StripeRefused: Stripe accepts no customer with this address, above all.
        StripeUnavailable: Stripe is unavailable; the next attempt finds what this one created.
    """
    return await _existing_customer(trial, stripe) or await _create_customer(trial, email, stripe, at)


async def provision_subscription(trial: Trial, customer_id: str, *, price: str, stripe: Stripe, at: datetime) -> str:
    """Create a trial's subscription, or find that of an earlier attempt; return its ID.

    ``price`` applies after the trial.

    Raises:
        StripeRefused: Stripe does not sell this price to this customer.
        StripeUnavailable: as ``provision_customer``.
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


async def _existing_customer(trial: Trial, stripe: Stripe) -> str | None:
    """The customer that the user had before the trial was reserved, unless it was deleted since."""
    if trial.stp_customer_id is None:
        return None
    customer = await stripe.customer(trial.stp_customer_id)
    return None if customer is None or customer.deleted else customer.id


async def _create_customer(trial: Trial, email: str, stripe: Stripe, at: datetime) -> str:
    customer_id = await idempotent_create(
        find=lambda: stripe.trial_customer_id(email, trial.id),
        create=lambda generation: stripe.create_customer(
            email=email,
            user_id=trial.user_id,
            trial_id=trial.id,
            key=key_of_generation(f"{trial.id}:customer", generation),
        ),
        find_first=trial.keys_expired(at),
    )
    fault_point("B1")
    return customer_id
