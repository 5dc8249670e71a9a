"""Products that Nest does not sell: their subscriptions, payments and disputes are left alone.

An account may sell other products beside Nest's (``NEST_STRIPE_PRODUCTS``). A record of Nest's is followed even after
its subscription has changed to another product, once, so that it no longer entitles.
"""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.payments.models import Payment
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.models import StripeSubscription
from services.billing.stripe_api.payment_models import StripeDispute, StripePayment
from services.billing.subscriptions.models import Subscription


def subscription_left_alone(
    stripe_subscription: StripeSubscription, stored: Subscription | None, billing: Billing
) -> bool:
    """Whether a subscription is not Nest's, now and by our record of it."""
    return not stripe_subscription.sold_by_nest and (stored is None or not billing.sells(stored.stp_product_id))


async def payment_left_alone(stripe_payment: StripePayment, stored: Payment | None, billing: Billing) -> bool:
    """Whether a payment without a record is for nothing of Nest's.

    It is Nest's if a line of its invoice is for a product of Nest's, if the invoice is of a subscription of Nest's, or,
    without an invoice, if its metadata names a user.
    """
    if not billing.products or stored is not None:
        return False
    if stripe_payment.invoice is None:
        return stripe_payment.user_id is None
    if stripe_payment.invoice.products & billing.products:
        return False
    subscription_id = stripe_payment.subscription_id
    subscription = None if subscription_id is None else await billing.subscriptions.find_by_stripe_id(subscription_id)
    return subscription is None or not billing.sells(subscription.stp_product_id)


async def dispute_left_alone(stripe_dispute: StripeDispute, billing: Billing, stripe: Stripe) -> bool:
    """Whether a dispute without a record is about a payment that is not Nest's; raises StripeUnavailable."""
    if not billing.products:
        return False
    intent_id = stripe_dispute.payment_intent_id
    if intent_id is None:
        return True
    stored = await billing.payments.find_by_stripe_id(intent_id)
    stripe_payment = None if stored is not None else await stripe.payment(intent_id)
    return stripe_payment is not None and await payment_left_alone(stripe_payment, stored, billing)
