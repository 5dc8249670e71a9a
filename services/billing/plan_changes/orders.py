"""Execution of a person's order about a subscription: the change in Stripe, once, and the record of what it led to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from services.billing.context import Billing
from services.billing.customer_state.models import shown
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.deadlines import within_deadline
from services.billing.stripe_api.idempotent_create import idempotent_create, key_of_generation
from services.billing.stripe_api.models import StripeSubscription
from services.billing.subscriptions.models import Subscription, latest
from services.billing.subscriptions.sync import read_subscription, record_subscription
from shared.bus.work import Work
from shared.fault_points import fault_point
from shared.messages.billing.errors import ChangeRefusedByStripe, SubscriptionNotFound
from shared.messages.billing.plan_changes import PlanOrder, PreviewPlanChange

Done = Callable[[StripeSubscription], bool]
"""Whether a subscription is as ordered. It may raise the refusal of an order that the subscription does not allow."""
Change = Callable[[Stripe, StripeSubscription, str], Awaitable[None]]
"""The calls that change a subscription as ordered, under idempotency keys that begin with the third argument."""


MAX_REMEMBERED: Final = 1_000
_CHANGED: Final[OrderedDict[str, None]] = OrderedDict()
"""IDs of the messages of this process that changed a subscription, the latest ones; only for the outcome of a reply."""


@dataclass(frozen=True, slots=True)
class Executed:
    """An executed order: the new record, the reading it was made of, and whether the order changed anything."""

    record: Subscription
    reading: StripeSubscription
    changed: bool


async def ordered_subscription(order: PlanOrder | PreviewPlanChange, work: Work, billing: Billing) -> Subscription:
    """The subscription that an order is about: the one it names, else the one that apps show, else the latest.

    Raises:
        SubscriptionNotFound: the user has none with this ID, or none at all.
    """
    of_user = await billing.subscriptions.of_user(order.user_id)
    if order.subscription_id is not None:
        of_user = [each for each in of_user if order.subscription_id in (each.id, each.stp_subscription_id)]
    subscription = shown(of_user, at=work.now, policy=billing.access) or latest(of_user)
    if subscription is None:
        raise SubscriptionNotFound
    work.annotate(user_id=order.user_id, resource_id=subscription.id)
    return subscription


async def execute(subscription: Subscription, work: Work, billing: Billing, *, done: Done, change: Change) -> Executed:
    """Change a subscription in Stripe unless it is as ordered, and record it as webhooks do.

    A repeat of the message has the same idempotency keys. Where Stripe has forgotten them, or they are spent, the
    subscription itself shows whether it was changed.

    Raises:
        SubscriptionNotFound: Stripe has no such subscription, or it belongs to another user now.
        ChangeRefusedByStripe: Stripe refuses the change.
        StripeUnavailable: Stripe is unavailable; it is unknown whether it was changed.
    """
    async with within_deadline(billing.stripe, work) as stripe:
        urgent = replace(billing, stripe=stripe)
        # The webhook about the change may be recorded before this work commits. Then the handler runs again, and finds
        # the change made.
        stripe_id, changed, again = subscription.stp_subscription_id, False, work.id in _CHANGED
        stored, reading = await read_current(subscription, urgent)

        async def find() -> str | None:
            nonlocal stored, reading
            if changed:
                stored, reading = await read_current(subscription, urgent)
            return stripe_id if done(reading) else None

        async def create(generation: int) -> str:
            nonlocal changed
            changed = True
            _remember(work.id)
            await change(stripe, reading, key_of_generation(f"{subscription.id}:{work.id}", generation))
            fault_point("B1")
            return stripe_id

        try:
            await idempotent_create(find=find, create=create, find_first=True)
        except StripeRefused as refused:
            refused.report(subscription=subscription.id)
            raise ChangeRefusedByStripe from refused
        if changed:
            stored, reading = await read_current(subscription, urgent)
        record = await record_subscription(stored, reading, work, urgent)
    if record is None:
        raise RuntimeError(f"{subscription.id} has a record and no user")
    return Executed(record, reading, changed or again)


def _remember(message_id: str) -> None:
    _CHANGED[message_id] = None
    if len(_CHANGED) > MAX_REMEMBERED:
        _CHANGED.popitem(last=False)


async def read_current(subscription: Subscription, billing: Billing) -> tuple[Subscription | None, StripeSubscription]:
    """The record of a subscription, and the subscription as Stripe has it now, if it still belongs to its user.

    Raises:
        SubscriptionNotFound: Stripe has no such subscription, or it belongs to another user now.
    """
    stored, reading = await read_subscription(subscription.stp_subscription_id, billing)
    if stored is None or reading is None:
        raise SubscriptionNotFound
    if (reading.user_id or reading.customer.user_id or subscription.user_id) != subscription.user_id:
        # The metadata in Stripe were changed, and the event about it is on its way.
        raise SubscriptionNotFound
    return stored, reading
