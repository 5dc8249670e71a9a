"""Queries of apps about the state of a customer, answered from our records."""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.customer_state.models import required_action, shown
from services.billing.customers.attribution import portal_customer
from services.billing.subscriptions.models import Subscription
from shared.bus.work import Work
from shared.messages.billing.links import PORTAL, payment_link
from shared.messages.billing.subscriptions import GetSubscriptionState, RequiredAction, SubscriptionStateView


async def get_subscription_state(query: GetSubscriptionState, work: Work, billing: Billing) -> SubscriptionStateView:
    """The state of the user's subscription, or the status ``none``."""
    of_user = await billing.subscriptions.of_user(query.user_id)
    portal_url = await portal_link(query.user_id, of_user, work, billing)
    subscription = shown(of_user, at=work.now, policy=billing.access)
    if subscription is None:
        return SubscriptionStateView(
            status="none",
            entitled=False,
            required_action=None,
            payment_url=None,
            billing_portal_url=portal_url,
            start_date=None,
            end_date=None,
            grace_ends_at=None,
            cancel_at=None,
            cancel_type=None,
            cancelled_at=None,
        )
    action = await action_for(subscription, billing)
    return SubscriptionStateView(
        status=subscription.status,
        entitled=subscription.entitled(work.now, billing.access),
        required_action=action,
        payment_url=payment_url(subscription, action),
        billing_portal_url=portal_url,
        start_date=subscription.starts_at,
        end_date=subscription.ends_at,
        grace_ends_at=subscription.grace_ends_at(billing.access),
        cancel_at=subscription.cancel_at,
        cancel_type=subscription.cancel_type,
        cancelled_at=subscription.cancelled_at,
    )


async def portal_link(user_id: str, of_user: list[Subscription], work: Work, billing: Billing) -> str | None:
    """The link to the customer portal of a user with these subscriptions; None if the user was never a customer.

    It is a placeholder, which the gateway replaces. By a setting it is a new session of Stripe's instead.
    """
    customer_id = await portal_customer(user_id, of_user, work, billing)
    if customer_id is None:
        return None
    return await billing.stripe.portal_url(customer_id) if billing.portal_in_status else PORTAL


async def action_for(subscription: Subscription, billing: Billing) -> RequiredAction | None:
    """What the person has to do for a subscription. Payments are only read if it is not paid for."""
    action = required_action(subscription, None)
    if action != "payment":
        return action
    return required_action(subscription, await billing.payments.latest_for(subscription))


def payment_url(subscription: Subscription, action: RequiredAction | None) -> str | None:
    """Placeholder of the link at which the person pays the open invoice, or confirms its payment."""
    return payment_link(subscription.stp_subscription_id) if action in ("payment", "authentication") else None
