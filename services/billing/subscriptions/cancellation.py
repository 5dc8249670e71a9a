"""Cancellation of a duplicate in Stripe, and of a trial whose user subscribed."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

from services.billing.context import Billing
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.models import StripeSubscription
from services.billing.subscriptions.duplicates import Duplicate
from shared.bus.work import Work
from shared.fault_points import fault_point
from shared.telemetry import log

MAX_EXTENSION: Final = timedelta(days=730)
"""The longest time until the next payment (https://docs.stripe.com/api/subscriptions/update: ``trial_end``)."""

UNCOUNTED: Final = timedelta(hours=1)
"""Remaining time that makes no further day, so that clocks that differ by seconds do not add one."""


async def cancel_in_stripe(
    duplicate: Duplicate,
    stripe_duplicate: StripeSubscription,
    stripe_kept: StripeSubscription,
    work: Work,
    billing: Billing,
    *,
    attempt: int,
) -> None:
    """Cancel a duplicate now; of a trial whose user subscribed first add the remaining days to the subscription.

    Raises:
        KeySpent: the idempotency key of this attempt can no longer do it; another attempt may.
        StripeRefused: Stripe refuses the cancellation.
        StripeUnavailable: Stripe is unavailable; a repeat continues.
    """
    subscription, kept = duplicate.subscription, duplicate.kept
    key = f"{subscription.id}:duplicate-of:{kept.id}:{attempt}"
    if duplicate.replaced_trial:
        days = await _carry_over(duplicate, stripe_duplicate, stripe_kept, work, billing, key=f"{key}:days")
        await billing.stripe.end_replaced_trial(
            subscription.stp_subscription_id, kept_subscription_id=kept.id, carried_over_days=days, key=key
        )
        return
    # The unused time of an unpaid period must not become a credit.
    await billing.stripe.cancel_duplicate(
        subscription.stp_subscription_id,
        kept_subscription_id=kept.id,
        key=key,
        prorate=stripe_duplicate.status != "past_due",
    )


async def _carry_over(
    duplicate: Duplicate,
    stripe_trial: StripeSubscription,
    stripe_kept: StripeSubscription,
    work: Work,
    billing: Billing,
    *,
    key: str,
) -> int:
    """Add the remaining days of a trial to the subscription that replaces it; returns how many were added.

    None are added to a subscription that is to end, that a schedule manages, or whose prices do not allow it: a metered
    price would be free meanwhile, and prices with different periods would move to one.
    """
    remaining = timedelta(0) if stripe_trial.trial_end is None else stripe_trial.trial_end - work.now
    days = math.ceil((remaining - UNCOUNTED) / timedelta(days=1))
    if days <= 0:
        return 0
    if stripe_kept.extended_by == duplicate.subscription.id:
        # An earlier attempt added them.
        return days
    until = stripe_kept.period_end + timedelta(days=days)
    if (
        stripe_kept.free
        or not stripe_kept.extendable
        or stripe_kept.schedule_id is not None
        or duplicate.kept.planned_end is not None
        or until - work.now > MAX_EXTENSION
    ):
        return 0
    try:
        await billing.stripe.extend(
            stripe_kept.id, until=until, trial_subscription_id=duplicate.subscription.id, key=key
        )
    except StripeRefused as refused:
        log.warning("remaining trial days not added", subscription=duplicate.kept.id, code=refused.code)
        return 0
    fault_point("B1")
    return days
