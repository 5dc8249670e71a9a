"""How does a user's subscription stand? Answered from our own record, whatever Stripe is doing."""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.models.subscriptions import Subscription, current, latest
from shared.bus.work import Work
from shared.messages.billing.errors import NoActiveSubscription, SubscriptionExpired, SubscriptionNotFound
from shared.messages.billing.subscriptions import (
    GetSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionStatus,
    SubscriptionStatusView,
    SubscriptionView,
)


async def get_subscription_status(query: GetSubscriptionStatus, work: Work, billing: Billing) -> SubscriptionStatusView:
    """The user's active subscription, with a link to the customer portal if Stripe gives one in time.

    Raises:
        NoActiveSubscription: there is none.
    """
    subscription = current(await billing.subscriptions.of_user(query.user_id), at=work.now, grace=billing.grace)
    if subscription is None:
        raise NoActiveSubscription
    return subscription.view(await billing.stripe.portal_url(subscription.stp_customer_id))


async def get_subscription_heartbeat(query: GetSubscriptionHeartbeat, work: Work, billing: Billing) -> None:
    """Nothing, while the user's subscription is active.

    Raises:
        SubscriptionExpired: it isn't.
    """
    if current(await billing.subscriptions.of_user(query.user_id), at=work.now, grace=billing.grace) is None:
        raise SubscriptionExpired


async def get_subscription(query: GetSubscription, work: Work, billing: Billing) -> SubscriptionView:
    """All that is held of one subscription, for operators.

    Raises:
        SubscriptionNotFound: there is no such subscription, or the user never had one.
    """
    subscription = await _asked_about(query, work, billing)
    if subscription is None:
        raise SubscriptionNotFound
    work.annotate(user_id=subscription.user_id, resource_id=subscription.id)
    siblings = await billing.subscriptions.of_user(subscription.user_id)
    return subscription.whole_view(siblings, at=work.now, grace=billing.grace)


async def _asked_about(query: GetSubscription, work: Work, billing: Billing) -> Subscription | None:
    if query.subscription_id is not None:
        return await billing.subscriptions.find(query.subscription_id)
    theirs = await billing.subscriptions.of_user(query.user_id or "")
    return current(theirs, at=work.now, grace=billing.grace) or latest(theirs)
