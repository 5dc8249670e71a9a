"""Handlers for customers: synchronization of their subscriptions, and users that auth found for their addresses."""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.customers.attribution import correct_mapping
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.reschedule import reschedule
from shared.bus.work import Work
from shared.messages.auth.users import UserEnsured
from shared.messages.billing.errors import StripeUnavailable
from shared.messages.billing.payments import FollowPayment
from shared.messages.billing.stripe_events import StripeCommand
from shared.messages.billing.subscriptions import FollowCustomer, FollowSubscription


async def follow_customer(command: FollowCustomer, work: Work, billing: Billing) -> None:
    """Correct the mapping of a customer and synchronize all its subscriptions, ended ones included."""
    try:
        await correct_mapping(command.customer_id, work, billing)
        subscription_ids = await billing.stripe.subscription_ids(command.customer_id)
    except StripeUnavailable:
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(customer=command.customer_id)
        return
    for subscription_id in subscription_ids:
        work.publish(FollowSubscription(key=subscription_id, subscription_id=subscription_id))


async def user_ensured(event: UserEnsured, work: Work, billing: Billing) -> None:
    """Map the customer for whom auth was asked to its user, and synchronize the subscriptions or payment that waited.

    If the user was erased meanwhile, the customer counts as erased too.
    """
    customer_id: str | None
    sync: StripeCommand
    if event.reference.startswith("cus_"):
        customer_id = event.reference
        sync = FollowCustomer(key=customer_id, customer_id=customer_id)
    elif event.reference.startswith("pi_"):
        payment = await billing.payments.find_by_stripe_id(event.reference)
        customer_id = None if payment is None else payment.stp_customer_id
        sync = FollowPayment(key=event.reference, payment_intent_id=event.reference)
    else:
        # Other services request users too, with references of their own.
        return
    if customer_id is None:
        return
    if await billing.erased.contains_any(event.user_id):
        await billing.erased.add([customer_id], work)
        return
    if await billing.mappings.find(customer_id) is None:
        billing.mappings.attach(customer_id, event.user_id, work)
    work.publish(sync)
