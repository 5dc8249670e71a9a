"""Is a user's subscription active? Answered from our own record, whatever Stripe is doing."""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.errors import NoActiveSubscription, SubscriptionExpired
from services.billing.models.subscriptions import current
from shared.messages.billing import GetSubscriptionHeartbeat, GetSubscriptionStatus, SubscriptionStatusView
from shared.work import Work


async def get_subscription_status(query: GetSubscriptionStatus, work: Work, billing: Billing) -> SubscriptionStatusView:
    """The user's active subscription, with a link to the customer portal if Stripe gives one in time.

    Raises:
        NoActiveSubscription: there is none.
    """
    subscription = current(await billing.subscriptions.of_user(query.user_id), at=work.now)
    if subscription is None:
        raise NoActiveSubscription
    return subscription.view(await billing.stripe.portal_url(subscription.stp_customer_id))


async def get_subscription_heartbeat(query: GetSubscriptionHeartbeat, work: Work, billing: Billing) -> None:
    """Nothing, while the user's subscription is active.

    Raises:
        SubscriptionExpired: it isn't.
    """
    if current(await billing.subscriptions.of_user(query.user_id), at=work.now) is None:
        raise SubscriptionExpired
