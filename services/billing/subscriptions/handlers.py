"""Handlers for subscriptions: synchronization with Stripe, cancellation and refund of unwanted ones, and queries."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.events.models import Outcome
from services.billing.events.pending import pending_events, settle
from services.billing.stripe_api.calls import KeySpent, StripeRefused
from services.billing.stripe_api.models import StripeSubscription
from services.billing.stripe_api.reschedule import reschedule
from services.billing.subscriptions.models import LIVE, Subscription, current, grace_expired, latest
from services.billing.subscriptions.refunds import refund_payments, report_not_refunded
from services.billing.subscriptions.sync import read_subscription, record_subscription, sync_subscription
from shared.bus.work import Work
from shared.fault_points import fault_point
from shared.ids import derived_message_id
from shared.messages.billing.errors import (
    NoActiveSubscription,
    StripeUnavailable,
    SubscriptionExpired,
    SubscriptionNotFound,
    TooManyPortalSessions,
)
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    CancelSubscriptionWithoutCoupon,
    CreatePortalSession,
    DuplicateSubscriptionFound,
    FollowSubscription,
    GetSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionStatus,
    PortalSessionView,
    RefundDuplicateSubscription,
    SubscriptionStatusView,
    SubscriptionView,
)
from shared.telemetry import log

USER_PAUSES: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 10, 60, 6 * 60, 17 * 60))
"""Pauses between readings of a subscription whose user is unknown, a day in all: its address may be corrected in Stripe
meanwhile."""
PAYMENT_PAUSE: Final = timedelta(hours=12)
MAX_PAYMENT_PAUSES: Final = 40
"""Bound on the waits for a processing payment: a bank debit takes days, and 20 days would mean a fault."""


async def follow_subscription(command: FollowSubscription, work: Work, billing: Billing) -> None:
    """Read a subscription from Stripe, record it, and settle the pending events about it."""
    pending = await pending_events(command, command.subscription_id, billing)
    if pending is None:
        return
    try:
        outcome = await sync_subscription(command.subscription_id, work, billing, pending=pending)
    except StripeUnavailable:
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(subscription=command.subscription_id)
        outcome = "refused"
    if outcome is None and command.event_id is not None:
        outcome = _wait_for_user(command, work)
    if outcome is not None:
        settle(pending, outcome, work, billing)


def _wait_for_user(command: FollowSubscription, work: Work) -> Outcome | None:
    """Order another reading of a subscription whose user auth was asked for; after a day give up.

    Auth sends no reply if it rejects the address. If it replies later, the customer is synchronized again.
    """
    if command.awaited == len(USER_PAUSES):
        metrics.NOBODY.inc()
        log.error("auth names no user for a subscription", subscription=command.subscription_id)
        return "nobody"
    retry = command.model_copy(update={"key": work.key, "awaited": command.awaited + 1})
    work.publish(retry, at=work.now + USER_PAUSES[command.awaited])
    return None


async def cancel_duplicate_subscription(command: CancelDuplicateSubscription, work: Work, billing: Billing) -> None:
    """Cancel a user's newer live subscription in Stripe, if both are still live there.

    The records may have been outdated when this was ordered. If the subscription to keep has ended, is unpaid for too
    long or belongs to another user, the newer one is not cancelled. If cancelling is switched off, or Stripe refuses
    it, the duplicate is announced.
    """
    duplicate = await billing.subscriptions.get(command.subscription_id)
    kept = await billing.subscriptions.get(command.kept_subscription_id)
    try:
        stored_kept, stripe_kept = await read_subscription(kept.stp_subscription_id, billing)
        _, stripe_duplicate = await read_subscription(duplicate.stp_subscription_id, billing)
        if (
            stripe_duplicate is not None
            and _live(stripe_kept, work, billing)
            and _live(stripe_duplicate, work, billing)
            and kept.user_id == duplicate.user_id
        ):
            # A subscription that also has other products is not Nest's to cancel.
            if not billing.cancel_duplicates or stripe_duplicate.sold_by_others:
                _announce_duplicate(command, duplicate.user_id, work)
                return
            metrics.DUPLICATES.labels("cancelled").inc()
            await billing.stripe.cancel_duplicate(
                duplicate.stp_subscription_id,
                kept_subscription_id=kept.id,
                key=f"{duplicate.id}:duplicate-of:{kept.id}:{command.attempt}",
            )
            fault_point("B1")
            # Stripe now has our comment on the subscription. The next handler that reads it, here or after a crash,
            # announces the cancellation and orders the mail and the refund.
            await sync_subscription(duplicate.stp_subscription_id, work, billing)
            return
    except (StripeUnavailable, KeySpent):
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(subscription=duplicate.id)
        _announce_duplicate(command, duplicate.user_id, work)
        return
    # If Stripe does not have the subscription to keep, its record can't be corrected and would order the same again.
    if stripe_kept is not None:
        await record_subscription(stored_kept, stripe_kept, work, billing)
        work.publish(
            FollowSubscription(key=duplicate.stp_subscription_id, subscription_id=duplicate.stp_subscription_id)
        )


async def refund_duplicate_subscription(command: RefundDuplicateSubscription, work: Work, billing: Billing) -> None:
    """Refund the payments of a cancelled duplicate; wait for payments that are still processing."""
    duplicate = await billing.subscriptions.get(command.subscription_id)
    try:
        processing = await refund_payments(duplicate, billing.stripe.calls)
    except StripeUnavailable:
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(subscription=duplicate.id)
        report_not_refunded(duplicate, refused.code)
        return
    if not processing:
        return
    if command.awaited >= MAX_PAYMENT_PAUSES:
        report_not_refunded(duplicate, "still processing")
        return
    retry = command.model_copy(update={"key": work.key, "attempt": 1, "awaited": command.awaited + 1})
    work.publish(retry, at=work.now + PAYMENT_PAUSE)


async def cancel_subscription_without_coupon(
    command: CancelSubscriptionWithoutCoupon, work: Work, billing: Billing
) -> None:
    """Cancel a subscription in Stripe if it still lacks the required coupon."""
    stored = await billing.subscriptions.get(command.subscription_id)
    try:
        _, stripe_subscription = await read_subscription(stored.stp_subscription_id, billing)
        if (
            stripe_subscription is not None
            and stripe_subscription.status in LIVE
            and stripe_subscription.sold_by_nest
            and not stripe_subscription.sold_by_others
            and stripe_subscription.lacks(billing.required_coupon)
        ):
            key = f"{stored.id}:without-coupon:{command.attempt}"
            await billing.stripe.cancel_without_coupon(stored.stp_subscription_id, key=key)
            fault_point("B1")
        await sync_subscription(stored.stp_subscription_id, work, billing)
    except (StripeUnavailable, KeySpent):
        reschedule(command, work)
    except StripeRefused as refused:
        # It stays as it is: an operator must cancel it in Stripe, or end what prevents that.
        refused.report(subscription=stored.id)


async def get_subscription_status(query: GetSubscriptionStatus, work: Work, billing: Billing) -> SubscriptionStatusView:
    """The user's active subscription, from our record; raises NoActiveSubscription if there is none.

    The gateway adds the link to the customer portal. By a setting it is a new session of Stripe's instead, unless
    Stripe creates none in time.
    """
    subscription = current(await billing.subscriptions.of_user(query.user_id), at=work.now, grace=billing.grace)
    if subscription is None:
        raise NoActiveSubscription
    if not billing.portal_in_status:
        return subscription.view(None)
    return subscription.view(await billing.stripe.portal_url(subscription.stp_customer_id))


async def create_portal_session(query: CreatePortalSession, work: Work, billing: Billing) -> PortalSessionView:
    """A new session of Stripe's customer portal.

    Raises:
        SubscriptionNotFound: the user never had a subscription.
        TooManyPortalSessions: the links of the user were opened too often.
        StripeUnavailable: Stripe creates no session in time.
    """
    of_user = await billing.subscriptions.of_user(query.user_id)
    subscription = current(of_user, at=work.now, grace=billing.grace) or latest(of_user)
    if subscription is None:
        raise SubscriptionNotFound
    wait = billing.portal_limit.open(query.user_id, at=work.now)
    if wait:
        raise TooManyPortalSessions(retry_after=wait)
    url = await billing.stripe.portal_url(subscription.stp_customer_id)
    if url is None:
        raise StripeUnavailable
    return PortalSessionView(url=url)


async def get_subscription_heartbeat(query: GetSubscriptionHeartbeat, work: Work, billing: Billing) -> None:
    """Check that the user has an active subscription; raises SubscriptionExpired if there is none."""
    if current(await billing.subscriptions.of_user(query.user_id), at=work.now, grace=billing.grace) is None:
        raise SubscriptionExpired


async def get_subscription(query: GetSubscription, work: Work, billing: Billing) -> SubscriptionView:
    """The record of a subscription, for operators; raises SubscriptionNotFound, also if the user never had one."""
    subscription = await _find(query, work, billing)
    if subscription is None:
        raise SubscriptionNotFound
    work.annotate(user_id=subscription.user_id, resource_id=subscription.id)
    of_user = await billing.subscriptions.of_user(subscription.user_id)
    sold = billing.sells(subscription.stp_product_id)
    return subscription.operator_view(of_user, at=work.now, grace=billing.grace, sold=sold)


async def _find(query: GetSubscription, work: Work, billing: Billing) -> Subscription | None:
    if query.subscription_id is not None:
        return await billing.subscriptions.find(query.subscription_id)
    of_user = await billing.subscriptions.of_user(query.user_id or "")
    return current(of_user, at=work.now, grace=billing.grace) or latest(of_user)


def _live(stripe_subscription: StripeSubscription | None, work: Work, billing: Billing) -> bool:
    return (
        stripe_subscription is not None
        and stripe_subscription.sold_by_nest
        and stripe_subscription.status in LIVE
        and not grace_expired(stripe_subscription.overdue_since, at=work.now, grace=billing.grace)
    )


def _announce_duplicate(command: CancelDuplicateSubscription, user_id: str, work: Work) -> None:
    metrics.DUPLICATES.labels("told").inc()
    log.warning("duplicate subscription not cancelled", subscription=command.subscription_id)
    work.publish(
        DuplicateSubscriptionFound(
            key=user_id,
            user_id=user_id,
            subscription_id=command.subscription_id,
            kept_subscription_id=command.kept_subscription_id,
        ),
        # Both are read many times; each pair is announced once.
        id=derived_message_id("duplicate-found", command.subscription_id, command.kept_subscription_id),
    )
