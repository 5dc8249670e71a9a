"""Synchronization of a subscription's record with Stripe.

The record, the announced events and the mails depend only on the stored record and on what Stripe returns now. So they
are the same in whatever order events arrive, however often, and if some are missing. The one exception is
``customer.subscription.trial_will_end``, whose creation time decides whether a mail about the end of a trial is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.customers.attribution import attribute_subscription
from services.billing.events.models import EventRow, Outcome
from services.billing.stripe_api.models import StripeSubscription
from services.billing.subscriptions.models import STATUSES, Subscription, duplicates_to_cancel
from services.billing.subscriptions.products import subscription_left_alone
from services.billing.trials.eligibility import is_provisional
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import Sealed
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    CancelSubscriptionWithoutCoupon,
    DuplicateSubscriptionCancelled,
    RefundDuplicateSubscription,
    SubscriptionChanged,
    SubscriptionEnded,
    SubscriptionStarted,
)
from shared.messages.mailer.mails import PersonVariables, SendMail, Template, TrialVariables
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
    sold = stripe_subscription.sold_by_nest
    unwanted = sold and stripe_subscription.lacks(billing.required_coupon) and not updated.taken_over
    if unwanted and updated.live(work.now, billing.grace):
        work.publish(CancelSubscriptionWithoutCoupon(key=updated.stp_subscription_id, subscription_id=updated.id))
    elif sold and updated.live(work.now, billing.grace):
        unwanted = await _order_duplicate_cancellations(stored, updated, work, billing)
    if sold and not unwanted and not await is_provisional(stripe_subscription, billing):
        updated = _order_mails(updated, stripe_subscription, notices, work)
    _announce(stored, updated, stripe_subscription, work, grace=billing.grace)
    if stored is None:
        billing.subscriptions.add(updated, work)
    else:
        billing.subscriptions.save(updated, work)
    await _update_trial(stripe_subscription, work, billing)
    return updated


async def _order_duplicate_cancellations(
    stored: Subscription | None, updated: Subscription, work: Work, billing: Billing
) -> bool:
    """Order the cancellation of the user's duplicates; returns whether this subscription is one of them."""
    if stored is None or not stored.live(work.now, billing.grace) or stored.user_id != updated.user_id:
        await billing.payers.serialize(updated.user_id, work)
    others = [other for other in await billing.subscriptions.of_user(updated.user_id) if other.id != updated.id]
    is_duplicate = False
    for duplicate, kept in duplicates_to_cancel([updated, *others], at=work.now, grace=billing.grace):
        is_duplicate = is_duplicate or duplicate is updated
        # A command of its own: the intent is committed before Stripe is called. Its handler reads both again.
        work.publish(
            CancelDuplicateSubscription(
                key=duplicate.stp_subscription_id, subscription_id=duplicate.id, kept_subscription_id=kept.id
            )
        )
    return is_duplicate


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


def _announce(
    stored: Subscription | None,
    updated: Subscription,
    stripe_subscription: StripeSubscription,
    work: Work,
    *,
    grace: timedelta,
) -> None:
    changed = () if stored is None else stored.changes(updated)
    fields: dict[str, Any] = {
        "key": updated.user_id,
        "user_id": updated.user_id,
        "subscription_id": updated.id,
        "status": updated.status,
        "entitled": stripe_subscription.sold_by_nest and updated.entitled(work.now, grace),
    }
    if stored is None:
        work.publish(SubscriptionStarted(**fields))
    if updated.ended and (stored is None or not stored.ended):
        work.publish(SubscriptionEnded(**fields, changed=changed, reason=stripe_subscription.end_reason))
    elif changed:
        work.publish(SubscriptionChanged(**fields, changed=changed))
    cancelled_as_duplicate = updated.duplicate_of is not None and (stored is None or stored.duplicate_of is None)
    # A duplicate that had ended before the account was taken over is neither announced nor refunded.
    if cancelled_as_duplicate and not (stored is None and updated.taken_over):
        work.publish(
            DuplicateSubscriptionCancelled(
                key=updated.user_id,
                user_id=updated.user_id,
                subscription_id=updated.id,
                kept_subscription_id=updated.duplicate_of or "",
            )
        )
        work.publish(RefundDuplicateSubscription(key=updated.stp_subscription_id, subscription_id=updated.id))
        _order_mail("duplicate-subscription", updated, stripe_subscription, PersonVariables(), work)


def _order_mails(
    updated: Subscription, stripe_subscription: StripeSubscription, notices: Sequence[datetime], work: Work
) -> Subscription:
    """Order the welcome mail and the mail about the end of the trial, if due; returns the record that notes them."""
    trial_end = stripe_subscription.trial_end
    if updated.welcome_due(stripe_subscription, at=work.now) and stripe_subscription.customer.email is not None:
        if stripe_subscription.trial_start is None:
            _order_mail("welcome", updated, stripe_subscription, PersonVariables(), work)
        else:
            _order_mail("welcome-trial", updated, stripe_subscription, TrialVariables(ends_at=trial_end), work)
        updated = updated.welcomed(work.now)
    if trial_end is not None and updated.trial_end_mail_due(stripe_subscription, notices, at=work.now):
        variables = TrialVariables(ends_at=trial_end)
        _order_mail(
            "trial-ending", updated, stripe_subscription, variables, work, occasion=str(int(trial_end.timestamp()))
        )
        updated = updated.notified_of_trial_end(trial_end)
    return updated


def _order_mail(
    template: Template,
    subscription: Subscription,
    stripe_subscription: StripeSubscription,
    variables: PersonVariables,
    work: Work,
    *,
    occasion: str = "",
) -> None:
    """Order a mail to the customer, if it has an address.

    The message ID is derived from the template, the subscription and the occasion, so the mail is sent once, however
    often it is ordered.
    """
    email = stripe_subscription.customer.email
    if email is None:
        return
    work.publish(
        SendMail(
            key=subscription.user_id,
            template=template,
            to=Sealed.of(email),
            variables=Sealed.of(variables.model_dump_json()),
            user_id=subscription.user_id,
        ),
        id=derived_message_id(
            template.removesuffix("-trial"), subscription.stp_subscription_id, *filter(None, [occasion])
        ),
    )
