"""Queries of apps about the state of a customer, answered from our records."""

from __future__ import annotations

import asyncio
from typing import Final

from services.billing.context import Billing
from services.billing.customer_state.models import next_invoice, plan_state, plans_of, required_action, shown
from services.billing.customers.attribution import portal_customer
from services.billing.entitlements.models import Entitlements
from services.billing.entitlements.sync import current_features
from services.billing.stripe_api.catalog_models import StripePrice, StripeProduct
from services.billing.stripe_api.models import SubscriptionItem
from services.billing.subscriptions.models import Subscription
from shared.bus.work import Work
from shared.messages.billing.customer_state import CustomerStateView, GetCustomerState, PlanItemState, PlanState
from shared.messages.billing.links import PORTAL, payment_link
from shared.messages.billing.subscriptions import GetSubscriptionState, RequiredAction, SubscriptionStateView

MAX_PLANS: Final = 50
"""Plans of a user that are shown."""


async def get_customer_state(query: GetCustomerState, work: Work, billing: Billing) -> CustomerStateView:
    """Everything about the user's plans, from our records.

    The features are those to which the records entitle now, even if the check that stores their end is late, or the
    user has no row yet.
    """
    of_user = await billing.subscriptions.of_user(query.user_id)
    stored = await billing.entitlements.find(query.user_id)
    entitlements = stored or Entitlements.none(query.user_id, at=work.now)
    plans = plans_of(of_user, at=work.now, policy=billing.access)[:MAX_PLANS]
    features, portal_url, views = await asyncio.gather(
        current_features(entitlements, work, billing),
        portal_link(query.user_id, of_user, work, billing),
        asyncio.gather(*(_plan_view(plan, work, billing) for plan in plans)),
    )
    return CustomerStateView(
        status=plans[0].status if plans else "none",
        entitled=any(view.entitled for view in views),
        features=tuple(sorted(features)),
        ent_v=entitlements.ent_v,
        plans=tuple(views),
        billing_portal_url=portal_url,
    )


async def _plan_view(plan: Subscription, work: Work, billing: Billing) -> PlanState:
    action, prices, products = await asyncio.gather(
        action_for(plan, work, billing),
        asyncio.gather(*(billing.catalog.price(item.stp_price_id) for item in plan.items)),
        asyncio.gather(*(billing.catalog.product(item.stp_product_id) for item in plan.items)),
    )
    items = tuple(map(_item_view, plan.items, prices, products, [plan.currency] * len(plan.items)))
    return plan_state(
        plan,
        items,
        next_invoice(plan, prices, at=work.now),
        required=action,
        payment_url=payment_url(plan, action),
        at=work.now,
        policy=billing.access,
    )


def _item_view(
    item: SubscriptionItem, price: StripePrice | None, product: StripeProduct | None, currency: str | None
) -> PlanItemState:
    code = currency or (None if price is None else price.currency)
    amount = None if price is None or code is None else price.amounts.get(code)
    recurring = None if price is None else price.recurring
    return PlanItemState(
        product_id=item.stp_product_id,
        product_name=None if product is None else product.name,
        price_id=item.stp_price_id,
        lookup_key=None if price is None else price.lookup_key,
        quantity=item.quantity,
        unit_amount=None if amount is None else amount.unit_amount,
        currency=code,
        interval=None if recurring is None else recurring.interval,
        interval_count=None if recurring is None else recurring.interval_count,
        usage_type=None if recurring is None else recurring.usage_type,
    )


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
    action = await action_for(subscription, work, billing)
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


async def action_for(subscription: Subscription, work: Work, billing: Billing) -> RequiredAction | None:
    """What the person has to do for a subscription. Payments are only read if something is not paid for."""
    action = required_action(subscription, None, at=work.now)
    if action != "payment":
        return action
    return required_action(subscription, await billing.payments.latest_for(subscription), at=work.now)


def payment_url(subscription: Subscription, action: RequiredAction | None) -> str | None:
    """Placeholder of the link at which the person pays the open invoice, or confirms its payment."""
    return payment_link(subscription.stp_subscription_id) if action in ("payment", "authentication") else None
