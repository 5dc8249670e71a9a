"""Comparison of one record with the object in Stripe, field by field."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

from services.billing.catalog.models import PriceRecord, ProductRecord
from services.billing.context import Billing
from services.billing.customers.attribution import user_of_dispute, user_of_payment
from services.billing.customers.models import ProviderMapping, user_of_subscription
from services.billing.disputes.models import Dispute
from services.billing.payments.models import Payment
from services.billing.runs.models import Drift
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.catalog_models import StripePrice, StripeProduct
from services.billing.stripe_api.models import StripeCustomer, StripeSubscription
from services.billing.stripe_api.payment_models import StripeDispute, StripePayment
from services.billing.subscriptions.models import Subscription
from services.billing.subscriptions.products import (
    dispute_left_alone,
    payment_left_alone,
    subscription_left_alone,
)
from services.billing.trials.models import Trial
from shared.messages import iso_milliseconds
from shared.messages.billing.disputes import FollowDispute
from shared.messages.billing.payments import FollowPayment
from shared.messages.billing.plans import FollowPrice, FollowProduct
from shared.messages.billing.runs import Subject
from shared.messages.billing.subscriptions import FollowCustomer, FollowSubscription
from shared.messages.message import Command

MAX_READINGS: Final = 3
"""Bound on the readings of a pair whose record keeps changing meanwhile."""
IGNORED_FIELDS: Final = frozenset({"read_at", "updated_at", "version", "paid", "standing", "moved_at"})
"""Fields that change with a reading alone, and facts of a reading that change in Stripe without an event about the
object: an invoice is paid, or a payment method is added."""


async def compare(subject: Subject, stripe_id: str, billing: Billing, stripe: Stripe) -> Drift | None:
    """Compare our record of an object with Stripe; None if they agree. Raises StripeUnavailable.

    If the record changes during the reading, both are read again, since the compared values did not exist at the same
    time. ``stripe`` is the account with the priority of the caller.
    """
    records, compare_with_stripe = billing.records.of_subject(subject), _COMPARISONS[subject]
    stored = await records.find(stripe_id)
    drift: Drift | None = None
    for _ in range(MAX_READINGS):
        drift = await compare_with_stripe(stripe_id, stored, billing, stripe)
        if drift is None:
            return None
        stored_afterwards = await records.find(stripe_id)
        if stored_afterwards == stored:
            return drift
        stored = stored_afterwards
    return drift


def repair_command(drift: Drift) -> Command:
    """The command that repairs a drift: the same as for a webhook about the object."""
    stripe_id = drift.stripe_id
    match drift.subject:
        case "customer":
            return FollowCustomer(key=stripe_id, customer_id=stripe_id)
        case "payment":
            return FollowPayment(key=stripe_id, payment_intent_id=stripe_id)
        case "dispute":
            return FollowDispute(key=stripe_id, dispute_id=stripe_id)
        case "product":
            return FollowProduct(key=stripe_id, product_id=stripe_id)
        case "price":
            return FollowPrice(key=stripe_id, price_id=stripe_id)
        case _:
            # A trial is synchronized with its subscription.
            return FollowSubscription(key=stripe_id, subscription_id=stripe_id)


async def compare_customer(
    stripe_id: str,
    stored: ProviderMapping | None,
    stripe_customer: StripeCustomer | None,
    billing: Billing,
    *,
    recorded_user_id: str | None,
) -> Drift | None:
    """Compare the mapping of a customer that was read; ``recorded_user_id`` is the user of its other records."""
    if stored is not None or stripe_customer is None:
        return customer_drift(stripe_id, stored, stripe_customer)
    user_id = stripe_customer.user_id or recorded_user_id
    if user_id is None or await billing.erased.contains_any(stripe_id, user_id):
        return None
    return _missing_here("customer", stripe_id)


async def compare_subscription(
    stripe_id: str, stored: Subscription | None, stripe_subscription: StripeSubscription | None, billing: Billing
) -> Drift | None:
    """Compare a record with a subscription that was read, after finding its user."""
    if stripe_subscription is None:
        return subscription_drift(stripe_id, stored, None, None)
    if subscription_left_alone(stripe_subscription, stored, billing):
        return None
    mapping = await billing.mappings.find(stripe_subscription.customer.id)
    user_id = user_of_subscription(stripe_subscription, mapping, stored)
    return subscription_drift(stripe_id, stored, stripe_subscription, user_id)


async def compare_payment(
    stripe_id: str, stored: Payment | None, stripe_payment: StripePayment | None, billing: Billing
) -> Drift | None:
    """Compare a record with a payment that was read, after finding its user."""
    if stripe_payment is not None and await payment_left_alone(stripe_payment, stored, billing):
        return None
    if stripe_payment is None or stored is None:
        return payment_drift(stripe_id, stored, stripe_payment, None)
    return payment_drift(stripe_id, stored, stripe_payment, await user_of_payment(stripe_payment, billing))


async def compare_dispute(
    stripe_id: str, stored: Dispute | None, stripe_dispute: StripeDispute | None, billing: Billing, stripe: Stripe
) -> Drift | None:
    """Compare a record with a dispute that was read, after finding its payment and its user."""
    if stripe_dispute is not None and stored is None and await dispute_left_alone(stripe_dispute, billing, stripe):
        return None
    if stripe_dispute is None or stored is None:
        return dispute_drift(stripe_id, stored, stripe_dispute, None, None)
    intent_id = stripe_dispute.payment_intent_id
    payment = None if intent_id is None else await billing.payments.find_by_stripe_id(intent_id)
    user_id = await user_of_dispute(stripe_dispute, payment, billing)
    return dispute_drift(stripe_id, stored, stripe_dispute, payment, user_id)


async def _customer(stripe_id: str, stored: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    users = {} if stored is not None else await billing.records.users_of_customers([stripe_id])
    customer = await stripe.customer(stripe_id)
    return await compare_customer(stripe_id, stored, customer, billing, recorded_user_id=users.get(stripe_id))


async def _subscription(stripe_id: str, stored: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    return await compare_subscription(stripe_id, stored, await stripe.subscription(stripe_id), billing)


async def _trial(stripe_id: str, stored: Any, _billing: Billing, stripe: Stripe) -> Drift | None:
    return None if stored is None else trial_drift(stored, await stripe.subscription(stripe_id))


async def _payment(stripe_id: str, stored: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    return await compare_payment(stripe_id, stored, await stripe.payment(stripe_id), billing)


async def _dispute(stripe_id: str, stored: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    return await compare_dispute(stripe_id, stored, await stripe.dispute(stripe_id), billing, stripe)


async def _product(stripe_id: str, stored: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    return product_drift(stripe_id, stored, await stripe.product(stripe_id), billing)


async def _price(stripe_id: str, stored: Any, billing: Billing, stripe: Stripe) -> Drift | None:
    return price_drift(stripe_id, stored, await stripe.price(stripe_id), billing)


_COMPARISONS: Final[dict[Subject, Callable[[str, Any, Billing, Stripe], Awaitable[Drift | None]]]] = {
    "customer": _customer,
    "subscription": _subscription,
    "trial": _trial,
    "payment": _payment,
    "dispute": _dispute,
    "product": _product,
    "price": _price,
}
"""For each kind of object a function that reads it from Stripe and compares our record with it."""


def customer_drift(
    customer_id: str, mapping: ProviderMapping | None, stripe_customer: StripeCustomer | None
) -> Drift | None:
    """The drift of a customer's mapping; a deleted customer keeps it."""
    if mapping is None:
        return None
    if stripe_customer is None:
        return _missing_there("customer", customer_id, mapping.id)
    expected = mapping if stripe_customer.user_id is None else replace(mapping, user_id=stripe_customer.user_id)
    return _differing("customer", customer_id, mapping, expected)


def subscription_drift(
    subscription_id: str,
    stored: Subscription | None,
    stripe_subscription: StripeSubscription | None,
    user_id: str | None,
) -> Drift | None:
    """The drift of a subscription's record; ``user_id`` is None if the user is unknown."""
    if stripe_subscription is None:
        return None if stored is None else _missing_there("subscription", subscription_id, stored.id)
    if stored is None:
        customer = stripe_subscription.customer
        if user_id is not None or customer.email is not None:
            return _missing_here("subscription", subscription_id)
        if customer.deleted:
            # It ended with its customer, and nothing is left that would identify its user.
            return None
        return Drift(subject="subscription", stripe_id=subscription_id, our_id=None, kind="nobody")
    expected = stored.follow(
        user_id or stored.user_id, stripe_subscription, read_at=stored.read_at, at=stored.updated_at
    )
    return _differing("subscription", subscription_id, stored.completed_from(expected), expected)


def trial_drift(trial: Trial, stripe_subscription: StripeSubscription | None) -> Drift | None:
    """The drift of a finished trial; a pending one does not exist in Stripe."""
    if trial.stp_subscription_id is None:
        return None
    if stripe_subscription is None:
        return _missing_there("trial", trial.stp_subscription_id, trial.id)
    expected = trial.finish(stripe_subscription, at=trial.updated_at)
    return _differing("trial", trial.stp_subscription_id, trial, expected)


def payment_drift(
    intent_id: str, stored: Payment | None, stripe_payment: StripePayment | None, user_id: str | None
) -> Drift | None:
    """The drift of a payment's record; a payment may have no user."""
    if stripe_payment is None:
        return None if stored is None else _missing_there("payment", intent_id, stored.id)
    if stored is None:
        return _missing_here("payment", intent_id)
    expected = stored.follow(user_id, stripe_payment, read_at=stored.read_at, at=stored.updated_at)
    return _differing("payment", intent_id, stored, expected)


def dispute_drift(
    dispute_id: str,
    stored: Dispute | None,
    stripe_dispute: StripeDispute | None,
    payment: Payment | None,
    user_id: str | None,
) -> Drift | None:
    """The drift of a dispute's record, including the fields that come from its payment."""
    if stripe_dispute is None:
        return None if stored is None else _missing_there("dispute", dispute_id, stored.id)
    if stored is None:
        return _missing_here("dispute", dispute_id)
    expected = stored.follow(user_id, stripe_dispute, payment, read_at=stored.read_at, at=stored.updated_at)
    return _differing("dispute", dispute_id, stored.completed_from(expected), expected)


def product_drift(
    product_id: str, stored: ProductRecord | None, product: StripeProduct | None, billing: Billing
) -> Drift | None:
    """The drift of a product's record; None for a product that Nest does not sell."""
    if not billing.sells(product_id):
        return None
    if product is None:
        return None if stored is None else _missing_there("product", product_id, stored.id)
    return (
        _missing_here("product", product_id)
        if stored is None
        else _differing("product", product_id, stored.product, product)
    )


def price_drift(price_id: str, stored: PriceRecord | None, price: StripePrice | None, billing: Billing) -> Drift | None:
    """The drift of a price's record; None for a price of a product that Nest does not sell."""
    if price is None:
        return None if stored is None else _missing_there("price", price_id, stored.id)
    if not billing.sells(price.product_id):
        return None
    return _missing_here("price", price_id) if stored is None else _differing("price", price_id, stored.price, price)


def _missing_here(subject: Subject, stripe_id: str) -> Drift:
    return Drift(subject=subject, stripe_id=stripe_id, our_id=None, kind="missing_here")


def _missing_there(subject: Subject, stripe_id: str, our_id: str) -> Drift:
    return Drift(subject=subject, stripe_id=stripe_id, our_id=our_id, kind="missing_there")


def _differing(subject: Subject, stripe_id: str, ours: Any, theirs: Any) -> Drift | None:
    differences: list[dict[str, str | None]] = [
        {"field": each.name, "ours": _text(getattr(ours, each.name)), "theirs": _text(getattr(theirs, each.name))}
        for each in fields(ours)
        if each.name not in IGNORED_FIELDS and getattr(ours, each.name) != getattr(theirs, each.name)
    ]
    if not differences:
        return None
    return Drift(subject=subject, stripe_id=stripe_id, our_id=ours.id, kind="differs", field_differences=differences)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return iso_milliseconds(value) if isinstance(value, datetime) else str(value)
