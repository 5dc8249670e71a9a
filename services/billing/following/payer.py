"""Whose is a subscription? Its metadata says, or what was recorded of its customer, or its customer's address."""

from __future__ import annotations

from services.billing import alarms
from services.billing.context import Billing
from services.billing.models.mappings import ProviderMapping
from services.billing.models.stripe_objects import StripeCustomer, StripeSubscription
from services.billing.models.subscriptions import Subscription
from shared.ids import derived_message_id
from shared.messages.auth import EnsureUser
from shared.telemetry import log
from shared.work import Work


async def payer_of(truth: StripeSubscription, held: Subscription | None, work: Work, billing: Billing) -> str | None:
    """The user of a subscription; records the mapping of its customer where there is none.

    Returns:
        None when nobody is known yet: auth is asked for the user of the customer's address, if it has one.
    """
    customer = truth.customer
    mapping = await billing.mappings.find(customer.id)
    user_id = user_of_subscription(truth, mapping, held)
    if user_id is None:
        ask_auth(customer, work)
        return None
    if mapping is None:
        billing.mappings.add(customer.id, user_id, work)
    elif customer.user_id is not None and customer.user_id != mapping.user_id:
        # Only what is said of the customer itself moves it: one of its subscriptions may be meant for somebody else.
        billing.mappings.save(mapping.moved(customer.user_id, at=work.now), work)
    return user_id


def user_of_subscription(
    truth: StripeSubscription, mapping: ProviderMapping | None, held: Subscription | None
) -> str | None:
    """Whose a subscription is by all that is known: as Stripe was told, else as was recorded."""
    recorded = mapping or held
    return truth.user_id or truth.customer.user_id or (None if recorded is None else recorded.user_id)


async def correct_mapping(customer_id: str, work: Work, billing: Billing) -> None:
    """Bring a customer's mapping to what Stripe says of the customer itself, where that is something.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    mapping = await billing.mappings.find(customer_id)
    customer = None if mapping is None else await billing.stripe.customer(customer_id)
    if mapping is None or customer is None or customer.user_id in (None, mapping.user_id):
        return
    billing.mappings.save(mapping.moved(customer.user_id, at=work.now), work)


def ask_auth(customer: StripeCustomer, work: Work) -> None:
    """Ask for the user of a customer's address, which auth finds or makes; without one it is nobody's."""
    if customer.email is None:
        alarms.NOBODY.inc()
        log.error("nobody to attach a subscription to", customer=customer.id)
        return
    # An address is personal, and keys stay readable in Kafka. One question, however many events raise it.
    work.publish(
        EnsureUser(
            key=derived_message_id("address", customer.email.strip().lower()),
            reference=customer.id,
            email=customer.email,
        ),
        id=derived_message_id("ensure-user", customer.id, customer.email),
    )
