"""Is a record what Stripe says? Read here, read there, and read here again before it counts as drift."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from services.billing.context import Billing
from services.billing.following.disputes import user_of_dispute
from services.billing.following.payer import user_of_subscription
from services.billing.following.payments import user_of_payment
from services.billing.models import drift
from services.billing.models.disputes import Dispute
from services.billing.models.drift import Drift
from services.billing.models.payments import Payment
from services.billing.models.stripe_objects import StripeSubscription
from services.billing.models.stripe_payments import StripeDispute, StripePayment
from services.billing.models.subscriptions import Subscription
from services.billing.stripe.account import Stripe
from services.billing.stripe.payments import read_dispute, read_payment
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
        return drift.of_subscription(stripe_id, held, None, None)
    mapping = await billing.mappings.find(truth.customer.id)
    return drift.of_subscription(stripe_id, held, truth, user_of_subscription(truth, mapping, held))


async def payment_drift(
    stripe_id: str, held: Payment | None, truth: StripePayment | None, billing: Billing
) -> Drift | None:
    """A payment that was read against its record."""
    user_id = None if truth is None or held is None else await user_of_payment(truth, billing)
    return drift.of_payment(stripe_id, held, truth, user_id)


async def dispute_drift(
    stripe_id: str, held: Dispute | None, truth: StripeDispute | None, billing: Billing
) -> Drift | None:
    """A dispute that was read against its record, and what that has of its payment."""
    if truth is None or held is None:
        return drift.of_dispute(stripe_id, held, truth, None, None)
    intent_id = truth.payment_intent_id
    payment = None if intent_id is None else await billing.payments.find_by_stripe_id(intent_id)
    return drift.of_dispute(stripe_id, held, truth, payment, await user_of_dispute(truth, payment, billing))


async def _customer(stripe_id: str, held: Any, _billing: Billing, stripe: Stripe) -> Drift | None:
    return None if held is None else drift.of_customer(stripe_id, held, await stripe.customer(stripe_id))


async def _subscription(stripe_id: str, held: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    return await subscription_drift(stripe_id, held, await stripe.subscription(stripe_id), billing)


async def _trial(stripe_id: str, held: Any, _billing: Billing, stripe: Stripe) -> Drift | None:
    return None if held is None else drift.of_trial(held, await stripe.subscription(stripe_id))


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
