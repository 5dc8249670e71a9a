"""Attribution of Stripe's subscriptions, payments and disputes to users.

The user comes from Stripe's metadata, else from the mapping of the customer, else from auth, which finds or creates the
user of the customer's address.
"""

from __future__ import annotations

from services.billing import metrics
from services.billing.context import Billing
from services.billing.customers.models import user_of_subscription
from services.billing.payments.models import Payment
from services.billing.stripe_api.models import StripeSubscription
from services.billing.stripe_api.payment_models import StripeDispute, StripePayment
from services.billing.subscriptions.models import Subscription, by_age, current, latest, resumable
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages.auth.users import EnsureUser
from shared.telemetry import log


async def attribute_subscription(
    stripe_subscription: StripeSubscription, stored: Subscription | None, work: Work, billing: Billing
) -> str | None:
    """Find the user of a subscription, and map its customer to that user.

    Returns:
        The user's ID. None if it is unknown yet: then auth was asked for it, if the customer has an address.
    """
    customer = stripe_subscription.customer
    mapping = await billing.mappings.find(customer.id)
    user_id = user_of_subscription(stripe_subscription, mapping, stored)
    if user_id is None:
        if customer.email is None:
            metrics.NOBODY.inc()
            log.error("no user for a subscription", customer=customer.id)
        else:
            request_user(customer.id, customer.email, work, billing)
        return None
    if mapping is None:
        billing.mappings.attach(customer.id, user_id, work)
    elif customer.user_id is not None and customer.user_id != mapping.user_id:
        # Only the customer's own metadata moves the mapping: one of its subscriptions may be meant for another user.
        billing.mappings.save(mapping.moved(customer.user_id, at=work.now), work)
    return user_id


async def user_of_payment(stripe_payment: StripePayment, billing: Billing) -> str | None:
    """The user of a payment: from Stripe's metadata, else from the mapping of its customer."""
    if stripe_payment.metadata_user_id is not None or stripe_payment.customer is None:
        return stripe_payment.metadata_user_id
    mapping = await billing.mappings.find(stripe_payment.customer.id)
    return None if mapping is None else mapping.user_id


async def user_of_dispute(stripe_dispute: StripeDispute, payment: Payment | None, billing: Billing) -> str | None:
    """The user of the disputed payment; for a charge without a payment intent the user of its customer."""
    if payment is not None or stripe_dispute.customer_id is None:
        return None if payment is None else payment.user_id
    mapping = await billing.mappings.find(stripe_dispute.customer_id)
    return None if mapping is None else mapping.user_id


async def portal_customer(user_id: str, of_user: list[Subscription], work: Work, billing: Billing) -> str | None:
    """Stripe's ID of the customer whose portal a user with these subscriptions opens; None if there is none.

    It is that of the active subscription, else of one that can be resumed, else of the latest one that has not ended.
    Without any of these it is the latest customer of the user of which no other user has a subscription: the portal
    shows the invoices of the customer, and those of a subscription that was moved are the new user's.
    """
    unended = [each for each in of_user if not each.ended]
    subscription = current(unended, at=work.now, policy=billing.access) or resumable(unended) or latest(unended)
    if subscription is not None:
        return subscription.stp_customer_id
    ended = [each.stp_customer_id for each in sorted(of_user, key=by_age, reverse=True)]
    customers = [*ended, *await billing.mappings.customers_of(user_id)]
    of_others = await billing.subscriptions.customers_of_others(user_id, customers)
    return next((each for each in customers if each not in of_others), None)


async def correct_mapping(customer_id: str, work: Work, billing: Billing) -> None:
    """Move a customer's mapping to the user in its Stripe metadata, if any; add it if it is missing.

    Without metadata, a missing mapping is to the user of the customer's newest subscription or payment. Raises
    StripeUnavailable.
    """
    mapping = await billing.mappings.find(customer_id)
    customer = await billing.stripe.customer(customer_id)
    if customer is None:
        return
    if mapping is not None:
        if customer.user_id not in (None, mapping.user_id):
            billing.mappings.save(mapping.moved(customer.user_id, at=work.now), work)
        return
    users = {} if customer.user_id is not None else await billing.records.users_of_customers([customer_id])
    user_id = customer.user_id or users.get(customer_id)
    if user_id is not None and not await billing.erased.contains_any(customer_id, user_id):
        billing.mappings.attach(customer_id, user_id, work)


def request_user(reference: str, email: str, work: Work, billing: Billing) -> None:
    """Request the user of an address from auth, which finds or creates it and replies with UserEnsured.

    ``reference`` is Stripe's ID of the customer or payment that waits for the user.
    """
    # One request, however many events cause it. Its ID is readable in Kafka and in the inbox, so it contains a keyed
    # hash: from a plain hash a reader could guess the address. After a rotation of the sealing key the request is
    # repeated, which is harmless.
    digest = billing.sealer.keyed_hash("ensure-user", reference.encode(), email.encode())
    work.publish(
        EnsureUser(key=reference, reference=reference, email=email), id=derived_message_id("ensure-user", digest)
    )
