"""Whose is a subscription? Its metadata says, or what was recorded of its customer, or its customer's address."""

from __future__ import annotations

from services.billing import metrics
from services.billing.context import Billing
from services.billing.customers.models import ProviderMapping
from services.billing.stripe_api.models import StripeSubscription
from services.billing.subscriptions.models import Subscription
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages.auth.users import EnsureUser
from shared.telemetry import log


async def payer_of(truth: StripeSubscription, held: Subscription | None, work: Work, billing: Billing) -> str | None:
    """The user of a subscription; records the mapping of its customer where there is none.

    Returns:
        None when nobody is known yet: auth is asked for the user of the customer's address, if it has one.
    """
    customer = truth.customer
    mapping = await billing.mappings.find(customer.id)
    user_id = user_of_subscription(truth, mapping, held)
    if user_id is None:
        if customer.email is None:
            metrics.NOBODY.inc()
            log.error("nobody to attach a subscription to", customer=customer.id)
        else:
            ask_auth(customer.id, customer.email, work, billing)
        return None
    if mapping is None:
        billing.mappings.attach(customer.id, user_id, work)
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


def ask_auth(reference: str, email: str, work: Work, billing: Billing) -> None:
    """Ask for the user of an address, which auth finds or makes.

    Args:
        reference: Stripe's id of what waits for the answer, by which that is followed then.
        email: of who pays for it.
        work: what the question is part of.
        billing: where.
    """
    # One question, however many events raise it. Its id is readable in Kafka and in the inbox, so it is made of a keyed
    # hash: else whoever reads it could try addresses. A new sealing key asks anew, which changes nothing.
    asked = billing.sealer.keyed_hash("ensure-user", reference.encode(), email.encode())
    work.publish(
        EnsureUser(key=reference, reference=reference, email=email), id=derived_message_id("ensure-user", asked)
    )
