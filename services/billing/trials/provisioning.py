"""How is a trial made in Stripe? Step by step, each exactly once, under keys made from the trial's id."""

from __future__ import annotations

from datetime import datetime

from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.idempotent_create import once
from services.billing.trials.models import Trial
from shared.fault_points import fault_point


async def provide(trial: Trial, email: str, *, price: str, stripe: Stripe, at: datetime) -> str:
    """Make the customer and the subscription of a trial, or find those that an earlier try made.

    Args:
        trial: a pending one.
        email: the customer's address: the same at every try.
        price: what the trial goes over into.
        stripe: where; its time limit covers all steps.
        at: now.

    Returns:
        The subscription's id in Stripe.

    Raises:
        StripeRefused: Stripe takes the address or the price as wrong.
        StripeUnavailable: Stripe could not be reached; what was done is found again by the next try.
    """
    customer_id = await _existing_customer(trial, stripe)
    if customer_id is None:
        customer_id = await once(
            find=lambda: stripe.trial_customer_id(email, trial.id),
            create=lambda generation: stripe.create_customer(
                email=email, user_id=trial.user_id, trial_id=trial.id, key=trial.key("customer", generation)
            ),
            look_first=trial.unsure(at),
        )
        fault_point("B1")
    customer = customer_id

    async def find() -> str | None:
        made = await stripe.subscription_ids(customer, trial_id=trial.id)
        return made[-1] if made else None

    subscription_id = await once(
        find=find,
        create=lambda generation: stripe.create_trial(
            customer_id=customer,
            price=price,
            user_id=trial.user_id,
            trial_id=trial.id,
            key=trial.key("subscription", generation),
        ),
        look_first=trial.unsure(at),
    )
    fault_point("B1")
    return subscription_id


async def _existing_customer(trial: Trial, stripe: Stripe) -> str | None:
    """The customer that the user had before the trial was reserved, unless it was deleted since."""
    if trial.stp_customer_id is None:
        return None
    customer = await stripe.customer(trial.stp_customer_id)
    return None if customer is None or customer.deleted else customer.id
