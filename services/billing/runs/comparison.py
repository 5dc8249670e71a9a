"""Is a record what Stripe says? Read here, read there, and read here again before it counts as drift."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

from services.billing.context import Billing
from services.billing.customers.attribution import user_of_subscription
from services.billing.customers.models import ProviderMapping
from services.billing.disputes.models import Dispute
from services.billing.disputes.sync import user_of_dispute
from services.billing.payments.models import Payment
from services.billing.payments.sync import user_of_payment
from services.billing.runs.models import Drift
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.models import StripeCustomer, StripeDispute, StripePayment, StripeSubscription
from services.billing.stripe_api.payments import read_dispute, read_payment
from services.billing.subscriptions.models import Subscription
from services.billing.trials.models import Trial
from shared.messages import iso_milliseconds
from shared.messages.billing.disputes import FollowDispute
from shared.messages.billing.payments import FollowPayment
from shared.messages.billing.runs import Subject
from shared.messages.billing.subscriptions import FollowCustomer, FollowSubscription
from shared.messages.message import Command

READINGS: Final = 3
"""How often a pair is read while our side moves meanwhile."""


async def examine(subject: Subject, stripe_id: str, billing: Billing, stripe: Stripe) -> Drift | None:
    """In what our record of one of Stripe's objects is not as Stripe says now.

    Fenced: if our record moves while Stripe is asked, both are read again, since what was compared was never there at
    one time.

    Args:
        subject: which kind.
        stripe_id: which.
        billing: where.
        stripe: the account, at the pace of who asks.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    find, judge = _READERS[subject]
    held = await find(stripe_id, billing)
    found: Drift | None = None
    for _ in range(READINGS):
        found = await judge(stripe_id, held, billing, stripe)
        if found is None:
            return None
        now = await find(stripe_id, billing)
        if now == held:
            return found
        held = now
    return found


def repair_of(found: Drift) -> Command:
    """The order that mends a drift: the one that a webhook about the object leads to."""
    stripe_id = found.stripe_id
    match found.subject:
        case "customer":
            return FollowCustomer(key=stripe_id, customer_id=stripe_id)
        case "payment":
            return FollowPayment(key=stripe_id, payment_intent_id=stripe_id)
        case "dispute":
            return FollowDispute(key=stripe_id, dispute_id=stripe_id)
        case _:
            # A trial follows with the subscription that it is.
            return FollowSubscription(key=stripe_id, subscription_id=stripe_id)


async def subscription_drift(
    stripe_id: str, held: Subscription | None, truth: StripeSubscription | None, billing: Billing
) -> Drift | None:
    """A subscription that was read against its record."""
    if truth is None:
        return of_subscription(stripe_id, held, None, None)
    mapping = await billing.mappings.find(truth.customer.id)
    return of_subscription(stripe_id, held, truth, user_of_subscription(truth, mapping, held))


async def payment_drift(
    stripe_id: str, held: Payment | None, truth: StripePayment | None, billing: Billing
) -> Drift | None:
    """A payment that was read against its record."""
    user_id = None if truth is None or held is None else await user_of_payment(truth, billing)
    return of_payment(stripe_id, held, truth, user_id)


async def dispute_drift(
    stripe_id: str, held: Dispute | None, truth: StripeDispute | None, billing: Billing
) -> Drift | None:
    """A dispute that was read against its record, and what that has of its payment."""
    if truth is None or held is None:
        return of_dispute(stripe_id, held, truth, None, None)
    intent_id = truth.payment_intent_id
    payment = None if intent_id is None else await billing.payments.find_by_stripe_id(intent_id)
    return of_dispute(stripe_id, held, truth, payment, await user_of_dispute(truth, payment, billing))


async def _customer(stripe_id: str, held: Any, _billing: Billing, stripe: Stripe) -> Drift | None:
    return None if held is None else of_customer(stripe_id, held, await stripe.customer(stripe_id))


async def _subscription(stripe_id: str, held: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    return await subscription_drift(stripe_id, held, await stripe.subscription(stripe_id), billing)


async def _trial(stripe_id: str, held: Any, _billing: Billing, stripe: Stripe) -> Drift | None:
    return None if held is None else of_trial(held, await stripe.subscription(stripe_id))


async def _payment(stripe_id: str, held: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    return await payment_drift(stripe_id, held, await read_payment(stripe_id, stripe.calls), billing)


async def _dispute(stripe_id: str, held: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    return await dispute_drift(stripe_id, held, await read_dispute(stripe_id, stripe.calls), billing)


Find = Callable[[str, Billing], Awaitable[Any]]
Judge = Callable[[str, Any, Billing, Stripe], Awaitable[Drift | None]]
_READERS: Final[dict[Subject, tuple[Find, Judge]]] = {
    "customer": (lambda stripe_id, billing: billing.mirrors.customers.find(stripe_id), _customer),
    "subscription": (lambda stripe_id, billing: billing.mirrors.subscriptions.find(stripe_id), _subscription),
    "trial": (lambda stripe_id, billing: billing.mirrors.trials.find(stripe_id), _trial),
    "payment": (lambda stripe_id, billing: billing.mirrors.payments.find(stripe_id), _payment),
    "dispute": (lambda stripe_id, billing: billing.mirrors.disputes.find(stripe_id), _dispute),
}
"""For each kind how our record is found, and how it is held against Stripe."""


OURS_ALONE: Final = frozenset({"read_at", "updated_at", "version"})
"""What moves with every reading and says nothing of Stripe."""


def of_customer(customer_id: str, mapping: ProviderMapping | None, truth: StripeCustomer | None) -> Drift | None:
    """A customer against its mapping. Who pays for nothing needs none; a deleted one keeps whose it was."""
    if mapping is None:
        return None
    if truth is None:
        return Drift(subject="customer", stripe_id=customer_id, our_id=mapping.id, kind="missing_there")
    wanted = mapping if truth.user_id is None else replace(mapping, user_id=truth.user_id)
    return _differing("customer", customer_id, mapping, wanted)


def of_subscription(
    subscription_id: str, held: Subscription | None, truth: StripeSubscription | None, user_id: str | None
) -> Drift | None:
    """A subscription against its record.

    Args:
        subscription_id: Stripe's id.
        held: our record.
        truth: what Stripe says.
        user_id: whose it is by all that is known.
    """
    if truth is None:
        return None if held is None else _gone("subscription", subscription_id, held.id)
    if held is None:
        if user_id is not None or truth.customer.email is not None:
            return Drift(subject="subscription", stripe_id=subscription_id, our_id=None, kind="missing_here")
        if truth.customer.deleted:
            # It is over with its customer, of whom nothing is left that would say whose it was.
            return None
        return Drift(subject="subscription", stripe_id=subscription_id, our_id=None, kind="nobody")
    wanted = held.follow(user_id or held.user_id, truth, read_at=held.read_at, at=held.updated_at)
    return _differing("subscription", subscription_id, held, wanted)


def of_trial(trial: Trial, truth: StripeSubscription | None) -> Drift | None:
    """A trial that was made against its subscription; one that is only reserved is nothing in Stripe yet."""
    if trial.stp_subscription_id is None:
        return None
    if truth is None:
        return _gone("trial", trial.stp_subscription_id, trial.id)
    return _differing("trial", trial.stp_subscription_id, trial, trial.finish(truth, at=trial.updated_at))


def of_payment(intent_id: str, held: Payment | None, truth: StripePayment | None, user_id: str | None) -> Drift | None:
    """A payment against its record; as ``of_subscription``, but that a payment may be nobody's."""
    if truth is None:
        return None if held is None else _gone("payment", intent_id, held.id)
    if held is None:
        return Drift(subject="payment", stripe_id=intent_id, our_id=None, kind="missing_here")
    return _differing("payment", intent_id, held, held.follow(user_id, truth, read_at=held.read_at, at=held.updated_at))


def of_dispute(
    dispute_id: str,
    held: Dispute | None,
    truth: StripeDispute | None,
    payment: Payment | None,
    user_id: str | None,
) -> Drift | None:
    """A dispute, and what it has of its payment, against its record."""
    if truth is None:
        return None if held is None else _gone("dispute", dispute_id, held.id)
    if held is None:
        return Drift(subject="dispute", stripe_id=dispute_id, our_id=None, kind="missing_here")
    wanted = held.follow(user_id, truth, payment, read_at=held.read_at, at=held.updated_at)
    return _differing("dispute", dispute_id, held, wanted)


def _gone(subject: Subject, stripe_id: str, our_id: str) -> Drift:
    return Drift(subject=subject, stripe_id=stripe_id, our_id=our_id, kind="missing_there")


def _differing(subject: Subject, stripe_id: str, ours: Any, theirs: Any) -> Drift | None:
    different: list[dict[str, str | None]] = [
        {"field": each.name, "ours": _text(getattr(ours, each.name)), "theirs": _text(getattr(theirs, each.name))}
        for each in fields(ours)
        if each.name not in OURS_ALONE and getattr(ours, each.name) != getattr(theirs, each.name)
    ]
    if not different:
        return None
    return Drift(subject=subject, stripe_id=stripe_id, our_id=ours.id, kind="differs", different=different)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return iso_milliseconds(value) if isinstance(value, datetime) else str(value)
