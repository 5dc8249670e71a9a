"""Rules of the state of a customer: which plans are shown, what the person has to do for them, and what comes next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from services.billing.payments.models import Payment
from services.billing.stripe_api.catalog_models import StripePrice
from services.billing.subscriptions.models import (
    AccessPolicy,
    Subscription,
    by_preference,
    current,
    latest,
    resumable,
)
from shared.messages.billing.customer_state import NextInvoice, PlanItemState, PlanState
from shared.messages.billing.subscriptions import RequiredAction


def shown(subscriptions: Iterable[Subscription], *, at: datetime, policy: AccessPolicy) -> Subscription | None:
    """The subscription of a user that an app shows; None if the user has none that has not ended.

    The active one comes first, then one that a payment or a payment method resumes. One whose period is over, and of
    whose renewal nothing is known, is shown too: Stripe has not ended it, so its user must not subscribe again.
    """
    unended = [subscription for subscription in subscriptions if not subscription.ended]
    return current(unended, at=at, policy=policy) or resumable(unended) or latest(unended)


def required_action(subscription: Subscription, payment: Payment | None, *, at: datetime) -> RequiredAction | None:
    """What the person has to do for a subscription; ``payment`` is the latest one for it, None if none is recorded.

    A ``past_due`` subscription has an open invoice, and so have an ``unpaid`` one and one whose first payment is
    ``incomplete``. So has one with a change that takes effect when its invoice is paid, whatever its status
    (https://docs.stripe.com/billing/subscriptions/pending-updates). A trial that ended without a payment method is
    ``paused`` (https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses). A payment method does not
    resume one that was paused by request (https://docs.stripe.com/api/subscriptions/pause).
    """
    if subscription.status == "paused":
        # A record of an earlier release does not say why.
        return None if subscription.paused_by_trial is False else "payment_method"
    unpaid = subscription.status in ("past_due", "unpaid", "incomplete")
    if not unpaid and not subscription.change_pending(at):
        return None
    return "authentication" if payment is not None and payment.status == "requires_action" else "payment"


def plans_of(subscriptions: Iterable[Subscription], *, at: datetime, policy: AccessPolicy) -> list[Subscription]:
    """The subscriptions of a user that have not ended: the one that is shown first, then others with access."""
    unended = [subscription for subscription in subscriptions if not subscription.ended]
    main = shown(unended, at=at, policy=policy)
    return sorted(unended, key=lambda each: (each is not main, not each.entitled(at, policy), by_preference(each)))


def next_invoice(
    subscription: Subscription, prices: Sequence[StripePrice | None], *, at: datetime
) -> NextInvoice | None:
    """The next invoice of a subscription at the end of its period, computed from its prices; None if there is none.

    The amount is unknown if it depends on usage, tiers, packages, coupons or a schedule, or if the currency or a price
    was not recorded. While collection is paused nothing is to be paid.
    """
    renews = subscription.status in ("active", "trialing", "past_due") and subscription.will_renew
    if not renews or subscription.collection_paused is not None:
        return None
    amounts = [
        _amount(price, item.quantity, subscription.currency)
        for item, price in zip(subscription.items, prices, strict=True)
    ]
    known = [amount for amount in amounts if amount is not None]
    complete = bool(amounts) and len(known) == len(amounts) and subscription.amount_varies is False
    return NextInvoice(
        date=max(subscription.ends_at, at),
        amount=sum(known) if complete else None,
        currency=subscription.currency if complete else None,
    )


def _amount(price: StripePrice | None, quantity: int | None, currency: str | None) -> int | None:
    if price is None or quantity is None or price.divide_by is not None or currency is None:
        return None
    amount = price.amounts.get(currency)
    return None if amount is None or amount.unit_amount is None else amount.unit_amount * quantity


def plan_state(
    subscription: Subscription,
    items: tuple[PlanItemState, ...],
    invoice: NextInvoice | None,
    *,
    required: RequiredAction | None,
    payment_url: str | None,
    at: datetime,
    policy: AccessPolicy,
) -> PlanState:
    """The view of a subscription; while it is on trial, its period ends with the trial."""
    trial_ends_at = subscription.ends_at if subscription.status == "trialing" else None
    days_left = None if trial_ends_at is None else max(0, math.ceil((trial_ends_at - at) / timedelta(days=1)))
    return PlanState(
        subscription_id=subscription.id,
        status=subscription.status,
        entitled=subscription.entitled(at, policy),
        items=items,
        start_date=subscription.starts_at,
        end_date=subscription.ends_at,
        will_renew=subscription.will_renew,
        cancel_at=subscription.cancel_at,
        cancel_type=subscription.cancel_type,
        cancelled_at=subscription.cancelled_at,
        trial_ends_at=trial_ends_at,
        trial_days_left=days_left,
        grace_ends_at=subscription.grace_ends_at(policy),
        collection_paused=subscription.collection_paused,
        required_action=required,
        payment_url=payment_url,
        next_invoice=invoice,
    )
