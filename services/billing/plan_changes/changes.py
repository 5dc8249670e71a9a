"""Previews of a change of plan, and the calls that order it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from services.billing.catalog.models import Offer
from services.billing.catalog.offers import offer_of
from services.billing.context import Billing
from services.billing.plan_changes.rules import Effect, PlanChange, PlanTarget
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.models import StripeSubscription
from services.billing.stripe_api.plan_change_models import Proration
from services.billing.subscriptions.models import Subscription
from shared.bus.work import Work
from shared.messages.billing.errors import (
    ChangeRefusedByStripe,
    PreviewOutdated,
    StripeUnavailable,
    SubscriptionExcluded,
)
from shared.messages.billing.subscriptions import RequiredAction
from shared.sealing import CannotUnseal

PREVIEW_LIFETIME: Final = timedelta(minutes=30)
"""How long an order may refer to a preview. Its prorations are those of the time of the preview."""
_PURPOSE: Final = "plan change"
"""First element of a preview's token, which no other text that billing seals has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a change costs, in the currency's minor unit; fields as in ``PlanChangeView``."""

    currency: str
    due_now: int = 0
    credit: int = 0
    next_at: datetime
    next_amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPreview:
    """What a preview has shown; its token is sealed, so nobody can change it. ``at`` and ``expires_at`` are Unix times.

    ``at`` is the time of the change for its prorations.
    """

    stp_subscription_id: str
    item_id: str
    old_price_id: str
    price_id: str
    quantity: int | None
    effect: Effect
    due_now: int
    at: int
    expires_at: int

    @classmethod
    def of(
        cls, reading: StripeSubscription, plan: PlanChange, cost: Cost, *, at: datetime, expires_at: datetime
    ) -> Self:
        """The preview of a change."""
        return cls(
            stp_subscription_id=reading.id,
            **asdict(plan.item),
            effect=plan.effect,
            due_now=cost.due_now,
            at=int(at.timestamp()),
            expires_at=int(expires_at.timestamp()),
        )

    def seal(self, billing: Billing) -> str:
        """The token."""
        return billing.seal(json.dumps([_PURPOSE, asdict(self)]))

    @classmethod
    def unseal(cls, token: str, billing: Billing) -> Self | None:
        """The preview of a token; None for another text."""
        try:
            content = json.loads(billing.unseal(token))
        except (CannotUnseal, ValueError):
            return None
        return cls(**content[1]) if isinstance(content, list) and content[:1] == [_PURPOSE] else None

    def holds(self, reading: StripeSubscription, plan: PlanChange, *, at: datetime) -> bool:
        """Whether it is a preview of this change, has not expired, and is of the current period.

        The amount is compared when the change is ordered.
        """
        shown = (self.stp_subscription_id, self.item_id, self.old_price_id, self.price_id, self.quantity, self.effect)
        item = plan.item
        ordered = (reading.id, item.item_id, item.old_price_id, item.price_id, item.quantity, plan.effect)
        in_period = reading.period_start.timestamp() <= self.at < reading.period_end.timestamp()
        return shown == ordered and in_period and at.timestamp() < self.expires_at


async def ordered_offer(target: PlanTarget, stripe: Stripe, billing: Billing) -> Offer:
    """The ordered price.

    Raises:
        PriceNotFound: Stripe has no such price in this mode.
        ChangeRefusedByStripe: the API key may not read prices or products.
        StripeUnavailable: Stripe is unavailable.
    """
    try:
        return await offer_of(target.price_id, stripe, billing)
    except StripeRefused as refused:
        refused.report(price=target.price_id)
        raise ChangeRefusedByStripe from refused


async def require_no_rival(
    subscription: Subscription, plan: PlanChange, offer: Offer, work: Work, billing: Billing
) -> None:
    """Refuse a change to a product for which the user has another live subscription; one of them would be cancelled.

    Raises:
        SubscriptionExcluded: there is one.
    """
    if not plan.changes_product:
        return
    products = frozenset({offer.price.product_id})
    rival = await billing.find_rival(subscription.user_id, products, at=work.now, own=subscription.id)
    if rival is not None:
        raise SubscriptionExcluded(subscription_id=rival.id)


async def preview_cost(
    stripe: Stripe, reading: StripeSubscription, plan: PlanChange, proration: Proration, *, at: datetime
) -> Cost:
    """What a change costs now and with the next invoice, by previews of Stripe.

    During a trial, and at the end of a period, nothing is prorated.
    """
    if plan.effect == "now" and plan.changes_item and reading.status == "active":
        first = await stripe.preview_items(reading.id, plan.item, proration=proration, at=at)
        due_now = plan.due_now(first, proration)
        if plan.new_cycle:
            return Cost(
                currency=first.currency,
                due_now=due_now,
                credit=first.credit,
                next_at=first.period_end,
                next_amount=first.recurring,
            )
        following = first
        if proration == "always_invoice":
            following = await stripe.preview_items(reading.id, plan.item, proration="none")
        return Cost(
            currency=first.currency,
            due_now=due_now,
            credit=first.credit,
            next_at=reading.period_end,
            next_amount=following.total,
        )
    following = await stripe.preview_items(reading.id, plan.item, proration="none")
    return Cost(currency=following.currency, next_at=reading.period_end, next_amount=following.total)


async def order_change(
    stripe: Stripe,
    reading: StripeSubscription,
    plan: PlanChange,
    preview: PlanPreview | None,
    proration: Proration,
    *,
    key: str,
) -> None:
    """Order a change from Stripe: by a schedule for the end of the period, else at once.

    A change at once drops what was planned before. It is pending until its invoice is paid, so that a declined payment
    entitles to nothing. Nothing is invoiced during a trial.

    Raises:
        PreviewOutdated: it costs something else than the preview has shown.
        KeySpent, StripeRefused, StripeUnavailable: as for the calls.
    """
    if plan.effect == "period_end":
        await stripe.schedule_items(reading.id, plan.item, plan.interval, schedule_id=reading.schedule_id, key=key)
        return
    trial = reading.status == "trialing"
    at = None if preview is None or trial else datetime.fromtimestamp(preview.at, reading.period_start.tzinfo)
    if preview is not None and plan.changes_item and not trial:
        cost = await stripe.preview_items(reading.id, plan.item, proration=proration, at=at)
        if plan.due_now(cost, proration) != preview.due_now:
            raise PreviewOutdated
    if reading.schedule_id is not None:
        await stripe.release_schedule(reading.schedule_id, key=f"{key}:release")
    if plan.changes_item:
        await stripe.change_items(
            reading.id,
            plan.item,
            proration="none" if trial else proration,
            at=at,
            pending=not trial and not reading.invoiced,
            key=key,
        )


async def pending_action(reading: StripeSubscription, billing: Billing) -> RequiredAction:
    """What the person has to do for a pending change; the page of the invoice serves both, so a guess does no harm."""
    try:
        stripe = billing.stripe.within(billing.stripe.calls.timeouts.portal)
        if await stripe.waits_for_bank(reading.latest_invoice_id or ""):
            return "authentication"
    except StripeUnavailable:
        pass
    return "payment"
