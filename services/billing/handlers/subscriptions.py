"""How are our subscriptions kept true, and those ended that must not be there?"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Final

from services.billing.context import Billing
from services.billing.errors import StripeUnavailable
from services.billing.following import follow, look, record
from services.billing.models.stripe_objects import StripeSubscription
from services.billing.models.subscriptions import LIVE
from shared.faultpoints import fault_point
from shared.messages.billing import (
    CancelDuplicateSubscription,
    CancelSubscriptionWithoutCoupon,
    FollowCustomer,
    FollowSubscription,
)
from shared.work import Work

FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=15)


async def follow_subscription(command: FollowSubscription, work: Work, billing: Billing) -> None:
    """Bring our record of a subscription to what Stripe says; later, if Stripe can't be asked now."""
    try:
        await follow(command.subscription_id, work, billing)
    except StripeUnavailable:
        again = FollowSubscription(key=work.key, subscription_id=command.subscription_id, attempt=command.attempt + 1)
        work.publish(again, at=_later(command.attempt, work))


async def follow_customer(command: FollowCustomer, work: Work, billing: Billing) -> None:
    """Follow all subscriptions of a customer, ended ones too; later, if Stripe can't be asked now."""
    try:
        subscription_ids = await billing.stripe.subscription_ids(command.customer_id)
    except StripeUnavailable:
        again = FollowCustomer(key=work.key, customer_id=command.customer_id, attempt=command.attempt + 1)
        work.publish(again, at=_later(command.attempt, work))
        return
    for subscription_id in subscription_ids:
        work.publish(FollowSubscription(key=command.customer_id, subscription_id=subscription_id))


async def cancel_duplicate_subscription(command: CancelDuplicateSubscription, work: Work, billing: Billing) -> None:
    """End a user's newer live subscription in Stripe, if both are alive there now.

    What was on record when this was ordered may have been old: if the one to be kept is over, or somebody else's, the
    newcomer stays.
    """
    newcomer = await billing.subscriptions.get(command.subscription_id)
    kept = await billing.subscriptions.get(command.kept_subscription_id)
    try:
        kept_held, kept_truth = await look(kept.stp_subscription_id, billing)
        _, truth = await look(newcomer.stp_subscription_id, billing)
        if _alive(kept_truth) and _alive(truth) and kept.user_id == newcomer.user_id:
            await billing.stripe.cancel_duplicate(
                newcomer.stp_subscription_id, kept_subscription_id=kept.id, key=f"{newcomer.id}:cancel-duplicate"
            )
            fault_point("B1")
            # Who cancelled it is written on it in Stripe: whichever message reads it first announces it and orders
            # the mail, also when this one dies here.
            await follow(newcomer.stp_subscription_id, work, billing)
            return
    except StripeUnavailable:
        again = CancelDuplicateSubscription(
            key=work.key,
            subscription_id=command.subscription_id,
            kept_subscription_id=command.kept_subscription_id,
            attempt=command.attempt + 1,
        )
        work.publish(again, at=_later(command.attempt, work))
        return
    # Without an answer about the one to be kept its record can't be mended, and would order the same again.
    if kept_truth is not None:
        await record(kept_held, kept_truth, work, billing)
        work.publish(FollowSubscription(key=newcomer.stp_customer_id, subscription_id=newcomer.stp_subscription_id))


async def cancel_subscription_without_coupon(
    command: CancelSubscriptionWithoutCoupon, work: Work, billing: Billing
) -> None:
    """End a subscription in Stripe that lacks the coupon every one needs here, if it still does."""
    held = await billing.subscriptions.get(command.subscription_id)
    try:
        _, truth = await look(held.stp_subscription_id, billing)
        if truth is not None and _alive(truth) and truth.lacks(billing.required_coupon):
            await billing.stripe.cancel_without_coupon(held.stp_subscription_id, key=f"{held.id}:cancel-uncouponed")
            fault_point("B1")
        await follow(held.stp_subscription_id, work, billing)
    except StripeUnavailable:
        again = CancelSubscriptionWithoutCoupon(
            key=work.key, subscription_id=command.subscription_id, attempt=command.attempt + 1
        )
        work.publish(again, at=_later(command.attempt, work))


def _alive(truth: StripeSubscription | None) -> bool:
    return truth is not None and truth.status in LIVE


def _later(attempt: int, work: Work) -> datetime:
    """When to try again: after growing pauses, and then every quarter of an hour until Stripe answers.

    For ever, because a record that isn't followed stays wrong for as long; jittered, since an outage hits many at once.
    """
    pause = min(FIRST_PAUSE * 3.0 ** min(attempt - 1, 10), LONGEST_PAUSE)
    return work.now + pause * random.uniform(0.7, 1.3)  # noqa: S311 -- jitter
