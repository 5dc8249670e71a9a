"""How does the record of a subscription follow Stripe? An event is a hint; what is true is read from Stripe.

Whatever the order, the repetitions and the gaps of what sets it off, the same record, the same announcements of what
changed in between and the same mails come out, because each depends only on the record and on what Stripe says now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.customers.attribution import payer_of
from services.billing.events.models import EventRow, Outcome
from services.billing.stripe_api.models import StripeSubscription
from services.billing.subscriptions.models import STATUSES, Subscription, duplicates
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
"""The one event whose type means more than that something changed: what it gives notice of lies ahead."""


async def follow(stripe_id: str, work: Work, billing: Billing, *, hints: Sequence[EventRow] = ()) -> Outcome | None:
    """Bring our record of a subscription to what Stripe says now.

    Args:
        stripe_id: which.
        work: what is done about it.
        billing: where.
        hints: events about it that were kept before this was called, hence are covered by the reading.

    Returns:
        What came of the hints; None when they go on waiting, because auth is asked whose it is.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    held, truth = await look(stripe_id, billing)
    if truth is None:
        return "missing"
    if await billing.erased.contains_any(truth.customer.id, truth.user_id, truth.customer.user_id):
        return "erased"
    notices = [hint.made_at for hint in hints if hint.type == TRIAL_WILL_END]
    if await record(held, truth, work, billing, notices=notices) is not None:
        return "read"
    return "nobody" if truth.customer.email is None else None


async def look(stripe_id: str, billing: Billing) -> tuple[Subscription | None, StripeSubscription | None]:
    """What we hold of a subscription, and what Stripe says, in this order.

    In this order, because the version of what was held before the reading is the fence: who stores a later reading
    meanwhile moves the version, and the earlier one can't be stored any more.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    held = await billing.subscriptions.find_by_stripe_id(stripe_id)
    truth = await billing.stripe.subscription(stripe_id)
    if truth is None:
        metrics.MISSING.inc()
        log.warning("stripe has no such subscription", subscription=stripe_id)
    elif metrics.count_other_mode(
        "subscription", livemode=truth.livemode, expected=billing.livemode, subscription=stripe_id
    ):
        return held, None
    return held, truth


async def record(
    held: Subscription | None,
    truth: StripeSubscription,
    work: Work,
    billing: Billing,
    *,
    notices: Sequence[datetime] = (),
) -> Subscription | None:
    """Store what Stripe says, and do what follows from it: announce, write to the payer, see to duplicates.

    Args:
        held: our record, as it was before the reading began.
        truth: what was read.
        work: what is done about it.
        billing: where.
        notices: when Stripe gave notice that its trial will end.

    Returns:
        The record; None when no user is known yet.
    """
    user_id = await payer_of(truth, held, work, billing)
    if user_id is None:
        return None
    if held is None:
        taken_over = await billing.takeover.covers(truth.created)
        now = Subscription.first_seen(work.new_id("sub"), user_id, truth, at=work.now, taken_over=taken_over)
    else:
        # What we hold was committed before this reading began, whatever the clocks of two machines say.
        now = held.follow(user_id, truth, read_at=max(work.now, held.read_at), at=work.now)
    if now.status not in STATUSES:
        metrics.UNKNOWN_STATUSES.inc()
        log.error("unknown subscription status", subscription=now.id, status=now.status)
    unwanted = truth.lacks(billing.required_coupon) and not now.taken_over
    if now.live(work.now, billing.grace):
        unwanted = await _see_to_others(held, now, work, billing, unwanted=unwanted)
    if not unwanted and now.welcome_due(truth, at=work.now) and truth.customer.email is not None:
        _order_welcome(now, truth, truth.customer.email, work)
        now = now.welcomed(work.now)
    if not unwanted and truth.trial_end is not None and now.trial_end_due(truth, notices, at=work.now):
        _order_trial_ending(now, truth.trial_end, truth.customer.email, work)
        now = now.told_of_trial_end(truth.trial_end)
    _announce(held, now, truth, work, grace=billing.grace)
    if held is None:
        billing.subscriptions.add(now, work)
    else:
        billing.subscriptions.save(now, work)
    await follow_trial(truth, work, billing)
    return now


async def _see_to_others(
    held: Subscription | None, now: Subscription, work: Work, billing: Billing, *, unwanted: bool
) -> bool:
    """Order the end of a live subscription that must not be there; tells whether it is this one."""
    if unwanted:
        work.publish(CancelSubscriptionWithoutCoupon(key=now.stp_subscription_id, subscription_id=now.id))
        return True
    if held is None or not held.live(work.now, billing.grace) or held.user_id != now.user_id:
        await billing.payers.take_turn(now.user_id, work)
    others = [other for other in await billing.subscriptions.of_user(now.user_id) if other.id != now.id]
    for newcomer, kept in duplicates([now, *others], at=work.now, grace=billing.grace):
        unwanted = unwanted or newcomer is now
        # An order of its own, so that the intent is committed before Stripe is called; it looks at both again.
        work.publish(
            CancelDuplicateSubscription(
                key=newcomer.stp_subscription_id, subscription_id=newcomer.id, kept_subscription_id=kept.id
            )
        )
    return unwanted


def _announce(
    held: Subscription | None, now: Subscription, truth: StripeSubscription, work: Work, *, grace: timedelta
) -> None:
    """Say what is new: one event for each thing that happened to the record."""
    changed = () if held is None else held.changes(now)
    facts: dict[str, Any] = {
        "key": now.user_id,
        "user_id": now.user_id,
        "subscription_id": now.id,
        "status": now.status,
        "entitled": now.entitled(work.now, grace),
    }
    if held is None:
        work.publish(SubscriptionStarted(**facts))
    if now.ended and (held is None or not held.ended):
        work.publish(SubscriptionEnded(**facts, changed=changed, reason=truth.end_reason))
    elif changed:
        work.publish(SubscriptionChanged(**facts, changed=changed))
    # Of one that was taken over its end is known, and who was told of it and what was given back is long past.
    ended_as_duplicate = now.duplicate_of is not None and (held is None or held.duplicate_of is None)
    if ended_as_duplicate and not (held is None and now.taken_over):
        work.publish(
            DuplicateSubscriptionCancelled(
                key=now.user_id,
                user_id=now.user_id,
                subscription_id=now.id,
                kept_subscription_id=now.duplicate_of or "",
            )
        )
        work.publish(RefundDuplicateSubscription(key=now.stp_subscription_id, subscription_id=now.id))
        if truth.customer.email is not None:
            _order_mail("duplicate-subscription", now, truth.customer.email, PersonVariables(), work)


def _order_welcome(now: Subscription, truth: StripeSubscription, email: str, work: Work) -> None:
    if truth.trial_start is None:
        _order_mail("welcome", now, email, PersonVariables(), work)
    else:
        _order_mail("welcome-trial", now, email, TrialVariables(ends_at=truth.trial_end), work)


def _order_trial_ending(now: Subscription, trial_end: datetime, email: str | None, work: Work) -> None:
    if email is not None:
        variables = TrialVariables(ends_at=trial_end)
        _order_mail("trial-ending", now, email, variables, work, occasion=str(int(trial_end.timestamp())))


def _order_mail(
    template: Template, now: Subscription, email: str, variables: PersonVariables, work: Work, *, occasion: str = ""
) -> None:
    """Order a mail that leaves once for an occasion in a subscription's life: under one id, whoever orders it."""
    work.publish(
        SendMail(
            key=now.user_id,
            template=template,
            to=Sealed.of(email),
            variables=Sealed.of(variables.model_dump_json()),
            user_id=now.user_id,
        ),
        id=derived_message_id(template.removesuffix("-trial"), now.stp_subscription_id, *filter(None, [occasion])),
    )


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
