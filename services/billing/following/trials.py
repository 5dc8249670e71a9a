"""How does the record of a trial follow its subscription? Its times and its payer may be changed in Stripe."""

from __future__ import annotations

from dataclasses import replace

from services.billing.context import Billing
from services.billing.models.stripe_objects import StripeSubscription
from shared.bus.work import Work


async def follow_trial(truth: StripeSubscription, work: Work, billing: Billing) -> None:
    """Bring the trial that a subscription was made for to what Stripe says; one not finished yet is left to its order.

    The fence is that of the subscription, which is stored with it.
    """
    if truth.trial_id is None:
        return
    held = await billing.trials.find(truth.trial_id)
    if held is None or held.stp_subscription_id != truth.id:
        return
    now = held.finish(truth, at=work.now)
    if now != replace(held, updated_at=work.now):
        billing.trials.save(now, work)
