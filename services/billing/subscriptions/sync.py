"""Synchronization of a subscription's record with Stripe.

The record, the announced events and the mails depend only on the stored record and on what Stripe returns now. So they
are the same in whatever order events arrive, however often, and if some are missing. The one exception is
``customer.subscription.trial_will_end``, whose creation time decides whether a mail about the end of a trial is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.customers.attribution import attribute_subscription
from services.billing.entitlements.models import grants
from services.billing.entitlements.sync import update_entitlements
from services.billing.events.models import EventRow, Outcome
from services.billing.stripe_api.models import StripeSubscription
from services.billing.subscriptions.duplicates import Duplicate, live_duplicates
from services.billing.subscriptions.mails import (
    order_change_mails,
    order_end_mail,
    order_unpaid_mail,
    order_welcome_mails,
)
from services.billing.subscriptions.models import STATUSES, Subscription, current
from services.billing.subscriptions.products import subscription_left_alone
from services.billing.subscriptions.renewals import schedule_renewal_check
from services.billing.trials.eligibility import is_provisional
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    CancellationPlanned,
    CancellationWithdrawn,
    CancelSubscriptionWithoutCoupon,
    CheckSubscriptionAccess,
    DuplicateSubscriptionCancelled,
    DuplicateSubscriptionFound,
    PlanChanged,
    PlanItem,
    RefundDuplicateSubscription,
    SubscriptionChanged,
    SubscriptionEnded,
    SubscriptionLapsed,
    SubscriptionMoved,
    SubscriptionResumed,
    SubscriptionStarted,
)
from shared.telemetry import log

TRIAL_WILL_END: Final = "customer.subscription.trial_will_end"


async def sync_subscription(
    stripe_id: str, work: Work, billing: Billing, *, pending: Sequence[EventRow] = ()
) -> Outcome | None:
    """Read a subscription from Stripe, record it, and return the outcome of the pending events.

    ``pending`` are the events about it that were pending before this call, and that the reading settles. Returns None
    if they stay pending, because auth was asked for the user. Raises StripeUnavailable.
    """
    stored, stripe_subscription = await read_subscription(stripe_id, billing)
    if stripe_subscription is None:
        return "missing"
    if subscription_left_alone(stripe_subscription, stored, billing):
        metrics.LEFT_ALONE.labels("other_product").inc()
        return "other_product"
    customer = stripe_subscription.customer
    if await billing.erased.contains_any(customer.id, stripe_subscription.user_id, customer.user_id):
        return "erased"
    notices = [event.made_at for event in pending if event.type == TRIAL_WILL_END]
    if await record_subscription(stored, stripe_subscription, work, billing, notices=notices) is not None:
        return "read"
    return "nobody" if customer.email is None else None


async def read_subscription(stripe_id: str, billing: Billing) -> tuple[Subscription | None, StripeSubscription | None]:
    """The stored record of a subscription, and the subscription as Stripe has it now; raises StripeUnavailable.

    The record is loaded first, because its version fences the reading: if another handler records a later reading
    meanwhile, the version has changed and this reading is not recorded. A record or subscription that does not exist is
    None, and so is a subscription of the other mode.
    """
    stored = await billing.subscriptions.find_by_stripe_id(stripe_id)
    stripe_subscription = await billing.stripe.subscription(stripe_id)
    if stripe_subscription is None:
        metrics.MISSING.inc()
        log.warning("stripe has no such subscription", subscription=stripe_id)
    elif metrics.count_other_mode(
        "subscription", livemode=stripe_subscription.livemode, expected=billing.livemode, subscription=stripe_id
    ):
        return stored, None
    return stored, stripe_subscription


async def record_subscription(
    stored: Subscription | None,
    stripe_subscription: StripeSubscription,
    work: Work,
    billing: Billing,
    *,
    notices: Sequence[datetime] = (),
) -> Subscription | None:
    """Record a reading, announce the changes, and order the mails and cancellations that follow from it.

    ``stored`` is the record before the reading began, ``notices`` the creation times of the ``trial_will_end`` events
    that the reading settles. Returns the new record; None if no user is known yet.
    """
    user_id = await attribute_subscription(stripe_subscription, stored, work, billing)
    if user_id is None:
        return None
    if stored is None:
        taken_over = await billing.takeover.covers(stripe_subscription.created)
        updated = Subscription.first_seen(
            work.new_id("sub"), user_id, stripe_subscription, at=work.now, taken_over=taken_over
        )
    else:
        # The stored record was committed before this reading began, even if the clocks of two machines differ.
        read_at = max(work.now, stored.read_at)
        updated = stored.follow(user_id, stripe_subscription, read_at=read_at, at=work.now)
    if updated.status not in STATUSES:
        metrics.UNKNOWN_STATUSES.inc()
        log.error("unknown subscription status", subscription=updated.id, status=updated.status)
    if stripe_subscription.sold_by_nest:
        updated = await _order_consequences(stored, updated, stripe_subscription, work, billing, notices=notices)
    _announce(stored, updated, stripe_subscription, work, billing)
    if stored is not None and stored.user_id != updated.user_id:
        await _announce_move(stored, updated, work, billing)
    billing.subscriptions.add_or_save(updated, work, stored=stored)
    await _update_entitlements(stored, updated, work, billing)
    await _update_trial(stripe_subscription, work, billing)
    return updated


async def _update_entitlements(
    stored: Subscription | None, updated: Subscription, work: Work, billing: Billing
) -> None:
    """Update the features of the user, and those of the former user of a subscription that was moved."""
    granted, grants_now = (grants(each, at=work.now, policy=billing.access) for each in (stored, updated))
    decisive = granted != grants_now
    await update_entitlements(updated.user_id, work, billing, changed=updated, decisive=decisive)
    if stored is not None and stored.user_id != updated.user_id:
        await update_entitlements(stored.user_id, work, billing, changed=updated, decisive=decisive)


async def _order_consequences(
    stored: Subscription | None,
    updated: Subscription,
    stripe_subscription: StripeSubscription,
    work: Work,
    billing: Billing,
    *,
    notices: Sequence[datetime],
) -> Subscription:
    """Order the cancellations, mails and checks that follow from a reading; returns the record that notes them."""
    unwanted = stripe_subscription.lacks(billing.required_coupon) and not updated.taken_over
    if updated.live(work.now, billing.access):
        if unwanted:
            work.publish(CancelSubscriptionWithoutCoupon(key=updated.stp_subscription_id, subscription_id=updated.id))
        else:
            unwanted = await _order_duplicate_cancellations(stored, updated, work, billing)
    if not unwanted and not await is_provisional(stripe_subscription, billing):
        order_change_mails(stored, updated, stripe_subscription, work, billing.account_url)
        updated = order_welcome_mails(updated, stripe_subscription, notices, work)
        updated = schedule_renewal_check(updated, stripe_subscription, work, billing)
    order_end_mail(stored, updated, stripe_subscription, work, billing.account_url)
    if stored is None and updated.lapsed(work.now, billing.access):
        # SubscriptionStarted announces that it does not entitle.
        return replace(updated, lapsed_at=work.now)
    return announce_lapse(updated, work, billing, stripe_subscription=stripe_subscription)


async def _order_duplicate_cancellations(
    stored: Subscription | None, updated: Subscription, work: Work, billing: Billing
) -> bool:
    """Order the cancellation of the user's duplicates; returns whether this subscription is one of them."""
    new = (
        stored is None
        or not stored.live(work.now, billing.access)
        or (stored.user_id, stored.products) != (updated.user_id, updated.products)
    )
    if new:
        await billing.payers.serialize(updated.user_id, work)
    others = [other for other in await billing.subscriptions.of_user(updated.user_id) if other.id != updated.id]
    is_duplicate = False
    for duplicate in live_duplicates(
        [updated, *others], at=work.now, policy=billing.access, exclusions=billing.exclusions
    ):
        if duplicate.cancellable:
            is_duplicate = is_duplicate or duplicate.subscription is updated
            # A command of its own: the intent is committed before Stripe is called. Its handler reads both again.
            work.publish(
                CancelDuplicateSubscription(
                    key=duplicate.subscription.stp_subscription_id,
                    subscription_id=duplicate.subscription.id,
                    kept_subscription_id=duplicate.kept.id,
                )
            )
        elif new and not duplicate.subscription.taken_over:
            announce_duplicate(duplicate, work)
    return is_duplicate


def announce_duplicate(duplicate: Duplicate, work: Work) -> None:
    """Announce a duplicate that is not cancelled. Both are read many times; each pair is announced once."""
    subscription, kept = duplicate.subscription, duplicate.kept
    metrics.DUPLICATES.labels("told").inc()
    log.warning("duplicate subscription not cancelled", subscription=subscription.id)
    work.publish(
        DuplicateSubscriptionFound(
            key=subscription.user_id,
            user_id=subscription.user_id,
            subscription_id=subscription.id,
            kept_subscription_id=kept.id,
        ),
        id=derived_message_id("duplicate-found", subscription.id, kept.id),
    )


async def _update_trial(stripe_subscription: StripeSubscription, work: Work, billing: Billing) -> None:
    """Update the trial for which a subscription was created, whose times and customer may be changed in Stripe.

    A trial that is still pending is left to FinishTrial, and one that is undone to CancelUndoneTrial. The version of
    the subscription, stored in the same commit, fences this write too.
    """
    if stripe_subscription.trial_id is None:
        return
    trial = await billing.trials.find(stripe_subscription.trial_id)
    if trial is None or trial.undone or trial.stp_subscription_id != stripe_subscription.id:
        return
    updated = trial.finish(stripe_subscription, at=work.now)
    if updated != replace(trial, updated_at=work.now):
        billing.trials.save(updated, work)


def announce_lapse(
    updated: Subscription, work: Work, billing: Billing, *, stripe_subscription: StripeSubscription | None
) -> Subscription:
    """Announce access that has ended by time alone, once, or schedule the check when it will end.

    Returns the record that notes it. ``stripe_subscription`` is the reading; None if Stripe is unavailable.
    """
    if not updated.lapsed(work.now, billing.access):
        ends_at = updated.access_ends_at(billing.access)
        if updated.entitled(work.now, billing.access) and updated.access_checked_at != ends_at:
            work.publish(
                CheckSubscriptionAccess(key=updated.stp_subscription_id, subscription_id=updated.id),
                at=ends_at,
                id=derived_message_id("check-access", updated.id, ends_at.isoformat()),
            )
            updated = replace(updated, access_checked_at=ends_at)
        return updated if updated.lapsed_at is None else replace(updated, lapsed_at=None)
    if updated.lapsed_at is not None:
        return updated
    grace_ends_at = updated.grace_ends_at(billing.access)
    unpaid = grace_ends_at is not None and work.now >= grace_ends_at
    work.publish(
        SubscriptionLapsed(
            key=updated.user_id,
            user_id=updated.user_id,
            subscription_id=updated.id,
            status=updated.status,
            reason="grace_period_ended" if unpaid else "period_ended",
        )
    )
    # Without a grace period the mail about the failed payment says that access has ended. An invoice that is sent to
    # the person fails no payment.
    invoiced = stripe_subscription is not None and stripe_subscription.invoiced
    if unpaid and (invoiced or not updated.overdue_without_grace(billing.access)):
        order_unpaid_mail(updated, stripe_subscription, work, billing.account_url)
    return replace(updated, lapsed_at=work.now)


async def _announce_move(stored: Subscription, updated: Subscription, work: Work, billing: Billing) -> None:
    """Announce to the apps of the former user that the subscription belongs to another user now."""
    others = [other for other in await billing.subscriptions.of_user(stored.user_id) if other.id != stored.id]
    remaining = current(others, at=work.now, policy=billing.access)
    work.publish(
        SubscriptionMoved(
            key=stored.user_id,
            user_id=stored.user_id,
            subscription_id=stored.id,
            new_user_id=updated.user_id,
            entitled=remaining is not None and remaining.entitled(work.now, billing.access),
        )
    )


def _announce(
    stored: Subscription | None,
    updated: Subscription,
    stripe_subscription: StripeSubscription,
    work: Work,
    billing: Billing,
) -> None:
    changed = () if stored is None else stored.changes(updated)
    ids: dict[str, Any] = {"key": updated.user_id, "user_id": updated.user_id, "subscription_id": updated.id}
    entitled = stripe_subscription.sold_by_nest and updated.entitled(work.now, billing.access)
    fields = {**ids, "status": updated.status, "entitled": entitled}
    status_before = None if stored is None else stored.status
    if stored is None:
        work.publish(SubscriptionStarted(**fields, happened_at=stripe_subscription.created))
    if updated.ended and (stored is None or not stored.ended):
        ended_at, reason = stripe_subscription.ended_at, stripe_subscription.end_reason
        work.publish(
            SubscriptionEnded(
                **fields, changed=changed, status_before=status_before, reason=reason, happened_at=ended_at
            )
        )
    elif changed:
        work.publish(SubscriptionChanged(**fields, changed=changed, status_before=status_before))
    if stored is not None and "items" in changed and plan_of(stored) != plan_of(updated):
        work.publish(PlanChanged(**ids, before=plan_of(stored), after=plan_of(updated), entitled=entitled))
    if stored is not None and not updated.ended:
        _announce_continuation(stored.completed_from(updated), updated, work, ids, entitled=entitled)
    cancelled_as_duplicate = updated.duplicate_of is not None and (stored is None or stored.duplicate_of is None)
    # A duplicate that had ended before the account was taken over is neither announced nor refunded. Nothing was paid
    # for a trial that ended because its user subscribed.
    if (
        cancelled_as_duplicate
        and not (stored is None and updated.taken_over)
        and stripe_subscription.end_reason != "trial_converted"
    ):
        work.publish(DuplicateSubscriptionCancelled(**ids, kept_subscription_id=updated.duplicate_of or ""))
        # Its handler orders the mail too, which says what happened to the money.
        work.publish(RefundDuplicateSubscription(key=updated.stp_subscription_id, subscription_id=updated.id))


def _announce_continuation(
    stored: Subscription, updated: Subscription, work: Work, ids: dict[str, Any], *, entitled: bool
) -> None:
    """Announce a planned cancellation, its withdrawal, and the end of a pause."""
    if updated.planned_end is not None and updated.planned_end != stored.planned_end:
        work.publish(CancellationPlanned(**ids, ends_at=updated.planned_end, happened_at=updated.cancelled_at))
    elif stored.planned_end is not None and updated.planned_end is None and not stored.ended:
        work.publish(CancellationWithdrawn(**ids, renews_at=updated.ends_at))
    if (stored.status == "paused" and updated.status != "paused") or (
        stored.collection_paused is not None and updated.collection_paused is None
    ):
        work.publish(SubscriptionResumed(**ids, status=updated.status, entitled=entitled))


def plan_of(subscription: Subscription) -> tuple[PlanItem, ...]:
    """The prices of a subscription as messages name them."""
    return tuple(
        PlanItem(product_id=item.stp_product_id, price_id=item.stp_price_id, quantity=item.quantity)
        for item in subscription.items
    )
