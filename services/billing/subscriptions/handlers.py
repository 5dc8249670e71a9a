"""Handlers for subscriptions: synchronization with Stripe, cancellation and refund of unwanted ones, and queries."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.customers.attribution import portal_customer
from services.billing.entitlements.sync import update_entitlements
from services.billing.events.models import Outcome
from services.billing.events.pending import pending_events, settle
from services.billing.stripe_api.calls import KeySpent, StripeRefused
from services.billing.stripe_api.models import StripeSubscription
from services.billing.stripe_api.reschedule import reschedule
from services.billing.subscriptions.cancellation import cancel_in_stripe
from services.billing.subscriptions.duplicates import Duplicate, excludes
from services.billing.subscriptions.mails import order_duplicate_mail
from services.billing.subscriptions.models import LIVE, Subscription, current, latest, resumable
from services.billing.subscriptions.refunds import refund_payments, report_not_refunded
from services.billing.subscriptions.renewals import order_renewal_mails
from services.billing.subscriptions.sync import (
    announce_duplicate,
    announce_lapse,
    read_subscription,
    record_subscription,
    sync_subscription,
)
from services.billing.subscriptions.views import operator_view, status_view
from shared.bus.work import Work
from shared.fault_points import fault_point
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
    CheckSubscriptionAccess,
    CheckSubscriptionRenewal,
    CreatePortalSession,
    FindSubscriptions,
    FollowSubscription,
    GetSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionStatus,
    PortalSessionView,
    ReconcileUser,
    ReconcileUserView,
    RefundDuplicateSubscription,
    ResumeSubscription,
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
    """Cancel one of a user's live subscriptions in Stripe, if the other one still excludes it.

    The records may have been outdated when this was ordered, so both are read again. If they show that the
    subscription is no duplicate of the other one, nothing is cancelled. If cancelling is switched off, or Stripe
    refuses it, the duplicate is announced.
    """
    subscription = await billing.subscriptions.get(command.subscription_id)
    kept = await billing.subscriptions.get(command.kept_subscription_id)
    ordered = Duplicate(subscription, kept, complete=True)
    try:
        stored_kept, stripe_kept = await read_subscription(kept.stp_subscription_id, billing)
        _, stripe_subscription = await read_subscription(subscription.stp_subscription_id, billing)
        if stripe_kept is None or stripe_subscription is None:
            duplicate = None
        else:
            duplicate = _still_a_duplicate(ordered, (stripe_subscription, stripe_kept), work, billing)
        if duplicate is not None and stripe_kept is not None and stripe_subscription is not None:
            # A subscription that also has other products is not Nest's to cancel.
            if not await billing.cancels_duplicates() or stripe_subscription.sold_by_others:
                announce_duplicate(ordered, work)
                return
            metrics.DUPLICATES.labels("cancelled").inc()
            await cancel_in_stripe(duplicate, stripe_subscription, stripe_kept, work, billing, attempt=command.attempt)
            fault_point("B1")
            # Stripe now has our comment on the subscription. The next handler that reads it, here or after a crash,
            # announces the cancellation and orders the mail and the refund.
            await sync_subscription(subscription.stp_subscription_id, work, billing)
            return
    except (StripeUnavailable, KeySpent):
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(subscription=subscription.id)
        announce_duplicate(ordered, work)
        return
    # If Stripe does not have the subscription to keep, its record can't be corrected and would order the same again.
    if stripe_kept is not None:
        await record_subscription(stored_kept, stripe_kept, work, billing)
        stripe_id = subscription.stp_subscription_id
        work.publish(FollowSubscription(key=stripe_id, subscription_id=stripe_id))


def _still_a_duplicate(
    ordered: Duplicate, readings: tuple[StripeSubscription, StripeSubscription], work: Work, billing: Billing
) -> Duplicate | None:
    """The duplicate, if it still is one by what Stripe says now."""
    if ordered.subscription.user_id != ordered.kept.user_id or not all(each.sold_by_nest for each in readings):
        return None
    subscription, kept = (
        record.follow(record.user_id, reading, read_at=max(work.now, record.read_at), at=work.now)
        for record, reading in zip((ordered.subscription, ordered.kept), readings, strict=True)
    )
    return excludes(subscription, kept, at=work.now, policy=billing.access, exclusions=billing.exclusions)


async def refund_duplicate_subscription(command: RefundDuplicateSubscription, work: Work, billing: Billing) -> None:
    """Refund the payments of a cancelled duplicate, and order the mail that says so.

    Payments that are still processing are waited for.
    """
    duplicate = await billing.subscriptions.get(command.subscription_id)
    try:
        kept = await billing.subscriptions.find(duplicate.duplicate_of or "")
        money = await refund_payments(
            duplicate, billing.stripe.calls, since=None if kept is None else kept.stp_created_at
        )
        await order_duplicate_mail(duplicate, money.variables, work, billing)
    except StripeUnavailable:
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(subscription=duplicate.id)
        report_not_refunded(duplicate, refused.code)
        return
    if not money.processing:
        return
    if command.awaited >= MAX_PAYMENT_PAUSES:
        report_not_refunded(duplicate, "still processing")
        return
    retry = command.model_copy(update={"key": work.key, "attempt": 1, "awaited": command.awaited + 1})
    work.publish(retry, at=work.now + PAYMENT_PAUSE)


async def check_subscription_access(command: CheckSubscriptionAccess, work: Work, billing: Billing) -> None:
    """Re-read a subscription whose access ends now, and announce the end if Stripe shows no renewal.

    While Stripe is unavailable the end is announced by our record, because access has ended by it, and the reading is
    repeated.
    """
    stored = await billing.subscriptions.find(command.subscription_id)
    if stored is None or not stored.lapsed(work.now, billing.access):
        return
    try:
        await sync_subscription(stored.stp_subscription_id, work, billing)
    except StripeUnavailable:
        updated = announce_lapse(stored, work, billing, stripe_subscription=None)
        if updated != stored:
            billing.subscriptions.save(updated, work)
            await update_entitlements(updated.user_id, work, billing, changed=updated, decisive=True)
        reschedule(command, work)
    except StripeRefused as refused:
        refused.report(subscription=stored.id)


async def check_subscription_renewal(command: CheckSubscriptionRenewal, work: Work, billing: Billing) -> None:
    """Re-read a subscription that renews soon, and order the mails that are due."""
    stored = await billing.subscriptions.find(command.subscription_id)
    if stored is None or not command.due_at <= work.now < stored.ends_at or not stored.will_renew:
        return
    try:
        stored, reading = await read_subscription(stored.stp_subscription_id, billing)
        if reading is None or not reading.sold_by_nest:
            return
        if await billing.erased.contains_any(reading.customer.id, reading.user_id, reading.customer.user_id):
            return
        updated = await record_subscription(stored, reading, work, billing)
        if updated is not None:
            await order_renewal_mails(updated, reading, command.due_at, work, billing)
    except StripeUnavailable:
        reschedule(command, work)
    except StripeRefused as refused:
        refused.report(subscription=command.subscription_id)


async def reconcile_user(command: ReconcileUser, work: Work, billing: Billing) -> ReconcileUserView:
    """Order the reading of all recorded subscriptions of a user."""
    work.annotate(user_id=command.user_id)
    subscriptions = await billing.subscriptions.of_user(command.user_id)
    for each in subscriptions:
        work.publish(FollowSubscription(key=each.stp_subscription_id, subscription_id=each.stp_subscription_id))
    return ReconcileUserView(subscriptions=len(subscriptions))


async def find_subscriptions(command: FindSubscriptions, work: Work, billing: Billing) -> None:
    """Order the reading of a schedule's subscription, or the resumption of a customer's paused subscriptions."""
    pending = await pending_events(command, command.object_id, billing)
    if pending is None:
        return
    outcome: Outcome = "read"
    if command.object == "customer":
        suspended = await billing.subscriptions.paused_of_customer(command.object_id)
        outcome = "read" if suspended else "not_followed"
        for paused in suspended:
            work.publish(ResumeSubscription(key=paused.stp_subscription_id, subscription_id=paused.id))
    else:
        try:
            stripe_ids = await billing.stripe.subscriptions_of_schedule(command.object_id)
        except StripeUnavailable:
            reschedule(command, work)
            return
        except StripeRefused as refused:
            refused.report(schedule=command.object_id)
            settle(pending, "refused", work, billing)
            return
        if stripe_ids is None:
            outcome = "missing"
        for stripe_id in stripe_ids or ():
            work.publish(FollowSubscription(key=stripe_id, subscription_id=stripe_id))
    settle(pending, outcome, work, billing)


async def resume_subscription(command: ResumeSubscription, work: Work, billing: Billing) -> None:
    """Resume a subscription whose trial ended without a payment method, if it has one now.

    The person was asked to add one to continue. It is not resumed if the customer has another subscription: then the
    payment method was meant for that one.
    """
    stored = await billing.subscriptions.get(command.subscription_id)
    stripe_id = stored.stp_subscription_id
    try:
        _, reading = await read_subscription(stripe_id, billing)
        if (
            reading is not None
            and reading.paused_by_trial
            and reading.payable
            and reading.sold_by_nest
            and await billing.stripe.is_only_subscription(stripe_id, reading.customer.id)
        ):
            await billing.stripe.resume(stripe_id, key=f"{stored.id}:resume:{work.id}:{command.attempt}")
            fault_point("B1")
            await sync_subscription(stripe_id, work, billing)
    except (StripeUnavailable, KeySpent):
        reschedule(command, work)
    except StripeRefused as refused:
        refused.report(subscription=stored.id)


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
    """The user's active subscription, from our record.

    The gateway adds the link to the customer portal. By a setting it is a new session of Stripe's instead, unless
    Stripe creates none in time.

    Raises:
        NoActiveSubscription: the user has none. If a subscription can be resumed, the ``meta`` of the refusal says how.
    """
    of_user = await billing.subscriptions.of_user(query.user_id)
    subscription = current(of_user, at=work.now, policy=billing.access)
    if subscription is not None:
        if not billing.portal_in_status:
            return status_view(subscription, None)
        return status_view(subscription, await billing.stripe.portal_url(subscription.stp_customer_id))
    suspended = resumable(of_user)
    if suspended is None:
        raise NoActiveSubscription
    portal_url, payment_url = None, None
    if billing.portal_in_status:
        portal_url = await billing.stripe.portal_url(suspended.stp_customer_id)
    if suspended.status != "paused":
        payment_url = await billing.stripe.open_invoice_url(suspended.stp_subscription_id)
    raise NoActiveSubscription(status=suspended.status, billing_portal_url=portal_url, payment_url=payment_url)


async def create_portal_session(query: CreatePortalSession, work: Work, billing: Billing) -> PortalSessionView:
    """A new session of Stripe's customer portal.

    Raises:
        SubscriptionNotFound: the user was never a customer.
        TooManyPortalSessions: the links of the user were opened too often.
        StripeUnavailable: Stripe creates no session in time.
    """
    of_user = await billing.subscriptions.of_user(query.user_id)
    customer_id = await portal_customer(query.user_id, of_user, work, billing)
    if customer_id is None:
        raise SubscriptionNotFound
    wait = billing.portal_limit.open(query.user_id, at=work.now)
    if wait:
        raise TooManyPortalSessions(retry_after=wait)
    url = await billing.stripe.portal_url(customer_id)
    if url is None:
        raise StripeUnavailable
    return PortalSessionView(url=url)


async def get_subscription_heartbeat(query: GetSubscriptionHeartbeat, work: Work, billing: Billing) -> None:
    """Check that the user has an active subscription; raises SubscriptionExpired if there is none."""
    if current(await billing.subscriptions.of_user(query.user_id), at=work.now, policy=billing.access) is None:
        raise SubscriptionExpired


async def get_subscription(query: GetSubscription, work: Work, billing: Billing) -> SubscriptionView:
    """The record of a subscription, for operators; raises SubscriptionNotFound, also if the user never had one."""
    subscription = await _find(query, work, billing)
    if subscription is None:
        raise SubscriptionNotFound
    work.annotate(user_id=subscription.user_id, resource_id=subscription.id)
    of_user = await billing.subscriptions.of_user(subscription.user_id)
    sold = billing.sells(subscription.stp_product_id)
    return operator_view(subscription, of_user, at=work.now, policy=billing.access, sold=sold)


async def _find(query: GetSubscription, work: Work, billing: Billing) -> Subscription | None:
    if query.subscription_id is not None:
        return await billing.subscriptions.find(query.subscription_id)
    of_user = await billing.subscriptions.of_user(query.user_id or "")
    return current(of_user, at=work.now, policy=billing.access) or latest(of_user)
