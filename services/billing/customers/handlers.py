"""What does billing learn from auth?"""

from __future__ import annotations

from typing import Final

from services.billing.context import Billing
from services.billing.customers.attribution import correct_mapping
from services.billing.payments.handlers import payer_ensured
from services.billing.stripe_api.reschedule import put_off
from shared.bus.work import Work
from shared.messages.auth.users import UserEnsured
from shared.messages.billing.errors import (
    StripeUnavailable,
)
from shared.messages.billing.subscriptions import (
    FollowCustomer,
    FollowSubscription,
)

CUSTOMER: Final = "cus_"
"""How Stripe's customers begin. Others may ask auth for users too, with references of their own."""
PAYMENT: Final = "pi_"
"""How Stripe's payment intents begin."""


async def user_ensured(event: UserEnsured, work: Work, billing: Billing) -> None:
    """Attach the customer we asked about to its user, and follow the subscriptions that waited for that.

    A user who was erased meanwhile comes back by no customer of theirs.
    """
    if event.reference.startswith(PAYMENT):
        await payer_ensured(event, work, billing)
    if not event.reference.startswith(CUSTOMER):
        return
    if await billing.erased.contains_any(event.user_id):
        await billing.erased.add([event.reference], work)
        return
    if await billing.mappings.find(event.reference) is None:
        billing.mappings.attach(event.reference, event.user_id, work)
    work.publish(FollowCustomer(key=event.reference, customer_id=event.reference))


async def follow_customer(command: FollowCustomer, work: Work, billing: Billing) -> None:
    """Follow a customer and all its subscriptions, ended ones too; later, if Stripe can't be asked now."""
    try:
        await correct_mapping(command.customer_id, work, billing)
        subscription_ids = await billing.stripe.subscription_ids(command.customer_id)
    except StripeUnavailable:
        put_off(command, work)
        return
    for subscription_id in subscription_ids:
        work.publish(FollowSubscription(key=subscription_id, subscription_id=subscription_id))
