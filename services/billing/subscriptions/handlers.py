"""How are our subscriptions kept true, and those ended that must not be there?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.events.models import EventRow, Outcome
from services.billing.events.pending import read_for
from services.billing.stripe_api.calls import KeySpent
from services.billing.stripe_api.models import StripeSubscription
from services.billing.stripe_api.reschedule import put_off
from services.billing.subscriptions.models import LIVE, Subscription, current, lapsed, latest
from services.billing.subscriptions.refunds import give_back
from services.billing.subscriptions.sync import follow, look, record
from shared.bus.work import Work
from shared.fault_points import fault_point
from shared.ids import derived_message_id
from shared.messages.billing.errors import (
    NoActiveSubscription,
    StripeUnavailable,
    SubscriptionExpired,
    SubscriptionNotFound,
)
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    CancelSubscriptionWithoutCoupon,
    DuplicateSubscriptionFound,
    FollowSubscription,
    GetSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionStatus,
    RefundDuplicateSubscription,
    SubscriptionStatusView,
    SubscriptionView,
)
from shared.telemetry import log

USER_AWAITED: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 10, 60, 6 * 60, 17 * 60))
"""Between looks whether it is known whose a subscription is: its address may be corrected in Stripe meanwhile."""
UNDER_WAY: Final = timedelta(hours=12)
AWAITED: Final = 40
"""How often a payment that is under way is awaited: a bank's debit takes days, three weeks would be a fault."""


async def follow_subscription(command: FollowSubscription, work: Work, billing: Billing) -> None:
    """Bring our record of a subscription to what Stripe says; later, if Stripe can't be asked now.

    Events about somebody whom auth is asked for wait, for a day at most: auth may take no user with such an address,
    and says so to nobody. When it answers after all, the customer is followed anew.
    """

    async def read(hints: Sequence[EventRow]) -> Outcome | None:
        outcome = await follow(command.subscription_id, work, billing, hints=hints)
        if outcome is not None or command.event_id is None:
            return outcome
        if command.awaited == len(USER_AWAITED):
            metrics.NOBODY.inc()
            log.error("auth names no user for a subscription", subscription=command.subscription_id)
            return "nobody"
        again = command.model_copy(update={"key": work.key, "awaited": command.awaited + 1})
        work.publish(again, at=work.now + USER_AWAITED[command.awaited])
        return None

    await read_for(command, command.subscription_id, read, work, billing)


async def cancel_duplicate_subscription(command: CancelDuplicateSubscription, work: Work, billing: Billing) -> None:
    """End a user's newer live subscription in Stripe, if both are alive there now.

    What was on record when this was ordered may have been old: if the one to be kept is over, not paid for too long, or
    somebody else's, the newcomer stays. Where nothing is to be cancelled, it is told of instead.
    """
    newcomer = await billing.subscriptions.get(command.subscription_id)
    kept = await billing.subscriptions.get(command.kept_subscription_id)
    try:
        kept_held, kept_truth = await look(kept.stp_subscription_id, billing)
        _, truth = await look(newcomer.stp_subscription_id, billing)
        alive = _alive(kept_truth, work, billing) and _alive(truth, work, billing)
        if alive and kept.user_id == newcomer.user_id:
            if not billing.cancel_duplicates:
                _tell_of_duplicate(command, newcomer.user_id, work)
                return
            metrics.DUPLICATES.labels("cancelled").inc()
            await billing.stripe.cancel_duplicate(
                newcomer.stp_subscription_id,
                kept_subscription_id=kept.id,
                key=f"{newcomer.id}:duplicate-of:{kept.id}:{command.attempt}",
            )
            fault_point("B1")
            # Who cancelled it is written on it in Stripe: whichever message reads it first announces it and orders
            # the mail and the refund, also when this one dies here.
            await follow(newcomer.stp_subscription_id, work, billing)
            return
    except (StripeUnavailable, KeySpent):
        put_off(command, work)
        return
    # Without an answer about the one to be kept its record can't be mended, and would order the same again.
    if kept_truth is not None:
        await record(kept_held, kept_truth, work, billing)
        work.publish(FollowSubscription(key=newcomer.stp_subscription_id, subscription_id=newcomer.stp_subscription_id))


async def refund_duplicate_subscription(command: RefundDuplicateSubscription, work: Work, billing: Billing) -> None:
    """Give back what was paid on a cancelled duplicate; later, if Stripe can't be asked or a payment is under way."""
    duplicate = await billing.subscriptions.get(command.subscription_id)
    try:
        under_way = await give_back(duplicate, billing.stripe.calls)
    except StripeUnavailable:
        put_off(command, work)
        return
    if not under_way:
        return
    if command.awaited >= AWAITED:
        metrics.NOT_REFUNDED.inc()
        log.error("payment of a duplicate not refunded", subscription=duplicate.id, reason="still under way")
        return
    again = command.model_copy(update={"key": work.key, "attempt": 1, "awaited": command.awaited + 1})
    work.publish(again, at=work.now + UNDER_WAY)


async def cancel_subscription_without_coupon(
    command: CancelSubscriptionWithoutCoupon, work: Work, billing: Billing
) -> None:
    """End a subscription in Stripe that lacks the coupon every one needs here, if it still does."""
    held = await billing.subscriptions.get(command.subscription_id)
    try:
        _, truth = await look(held.stp_subscription_id, billing)
        if truth is not None and truth.status in LIVE and truth.lacks(billing.required_coupon):
            key = f"{held.id}:without-coupon:{command.attempt}"
            await billing.stripe.cancel_without_coupon(held.stp_subscription_id, key=key)
            fault_point("B1")
        await follow(held.stp_subscription_id, work, billing)
    except (StripeUnavailable, KeySpent):
        put_off(command, work)


def _alive(truth: StripeSubscription | None, work: Work, billing: Billing) -> bool:
    return (
        truth is not None and truth.status in LIVE and not lapsed(truth.overdue_since, at=work.now, grace=billing.grace)
    )


def _tell_of_duplicate(command: CancelDuplicateSubscription, user_id: str, work: Work) -> None:
    metrics.DUPLICATES.labels("told").inc()
    log.warning("duplicate subscription left alone", subscription=command.subscription_id)
    work.publish(
        DuplicateSubscriptionFound(
            key=user_id,
            user_id=user_id,
            subscription_id=command.subscription_id,
            kept_subscription_id=command.kept_subscription_id,
        ),
        # Both are read again and again; each pair is told of once.
        id=derived_message_id("duplicate-found", command.subscription_id, command.kept_subscription_id),
    )


async def get_subscription_status(query: GetSubscriptionStatus, work: Work, billing: Billing) -> SubscriptionStatusView:
    """The user's active subscription, with a link to the customer portal if Stripe gives one in time.

    Raises:
        NoActiveSubscription: there is none.
    """
    subscription = current(await billing.subscriptions.of_user(query.user_id), at=work.now, grace=billing.grace)
    if subscription is None:
        raise NoActiveSubscription
    return subscription.view(await billing.stripe.portal_url(subscription.stp_customer_id))


async def get_subscription_heartbeat(query: GetSubscriptionHeartbeat, work: Work, billing: Billing) -> None:
    """Nothing, while the user's subscription is active.

    Raises:
        SubscriptionExpired: it isn't.
    """
    if current(await billing.subscriptions.of_user(query.user_id), at=work.now, grace=billing.grace) is None:
        raise SubscriptionExpired


async def get_subscription(query: GetSubscription, work: Work, billing: Billing) -> SubscriptionView:
    """All that is held of one subscription, for operators.

    Raises:
        SubscriptionNotFound: there is no such subscription, or the user never had one.
    """
    subscription = await _asked_about(query, work, billing)
    if subscription is None:
        raise SubscriptionNotFound
    work.annotate(user_id=subscription.user_id, resource_id=subscription.id)
    siblings = await billing.subscriptions.of_user(subscription.user_id)
    return subscription.whole_view(siblings, at=work.now, grace=billing.grace)


async def _asked_about(query: GetSubscription, work: Work, billing: Billing) -> Subscription | None:
    if query.subscription_id is not None:
        return await billing.subscriptions.find(query.subscription_id)
    theirs = await billing.subscriptions.of_user(query.user_id or "")
    return current(theirs, at=work.now, grace=billing.grace) or latest(theirs)
