"""Rules of the state of a customer: which subscription is shown, and what the person has to do for it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from services.billing.payments.models import Payment
from services.billing.subscriptions.models import AccessPolicy, Subscription, current, latest, resumable
from shared.messages.billing.subscriptions import RequiredAction


def shown(subscriptions: Iterable[Subscription], *, at: datetime, policy: AccessPolicy) -> Subscription | None:
    """The subscription of a user that an app shows; None if the user has none that has not ended.

    The active one comes first, then one that a payment or a payment method resumes. One whose period is over, and of
    whose renewal nothing is known, is shown too: Stripe has not ended it, so its user must not subscribe again.
    """
    unended = [subscription for subscription in subscriptions if not subscription.ended]
    return current(unended, at=at, policy=policy) or resumable(unended) or latest(unended)


def required_action(subscription: Subscription, payment: Payment | None) -> RequiredAction | None:
    """What the person has to do for a subscription; ``payment`` is the latest one for it, None if none is recorded.

    A ``past_due`` subscription has an open invoice, and so have an ``unpaid`` one and one whose first payment is
    ``incomplete``. A trial that ended without a payment method is ``paused``
    (https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses).
    """
    if subscription.status == "paused":
        return "payment_method"
    if subscription.status not in ("past_due", "unpaid", "incomplete"):
        return None
    return "authentication" if payment is not None and payment.status == "requires_action" else "payment"
