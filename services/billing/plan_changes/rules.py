"""Rules of another price or quantity: which item changes, whether it may, when it takes effect, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from services.billing.catalog.models import Offer
from services.billing.plan_changes.models import is_planned_to_end
from services.billing.stripe_api.catalog_models import StripePrice
from services.billing.stripe_api.models import ItemTerms, StripeSubscription
from services.billing.stripe_api.plan_change_models import InvoicePreview, ItemChange, Proration
from services.billing.subscriptions.models import ENDED
from shared.messages.billing.errors import (
    CurrencyNotOffered,
    SubscriptionHasEnded,
    SubscriptionNotChangeable,
)
from shared.messages.billing.plan_changes import ChangePlan, PreviewPlanChange

Effect = Literal["now", "period_end", "none"]
PlanTarget = PreviewPlanChange | ChangePlan
_CHANGEABLE: Final = frozenset({"active", "trialing"})
"""Other statuses have an open invoice, or no periods: they are paid or resumed first."""
_DAYS: Final = {"day": 1, "week": 7, "month": 30, "year": 365}
"""Length of an interval, only to compare it with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChange:
    """An ordered change of one item of a subscription, as the subscription is now.

    Attributes:
        item: with its price and quantity after the change.
        effect: when it takes effect; ``none`` if the item is so already and nothing else is planned.
        interval: of the ordered price.
        changes_item: whether the item differs now. If not, only a planned change is dropped.
        changes_product: whether the item becomes one of another product.
        new_cycle: whether a new period begins at once, because the interval differs.
        pending: whether this change waits for the payment of its invoice.
        planned: whether this change is planned for the end of the period.
    """

    item: ItemChange
    effect: Effect
    interval: tuple[str, int]
    changes_item: bool
    changes_product: bool
    new_cycle: bool
    pending: bool
    planned: bool

    @property
    def done(self) -> bool:
        """Whether nothing is to be ordered from Stripe."""
        return self.effect == "none" or self.pending or (self.effect == "period_end" and self.planned)

    def due_now(self, preview: InvoicePreview, proration: Proration) -> int:
        """What the customer pays at once; ``preview`` is that of this change with this proration."""
        invoiced = self.new_cycle or (proration == "always_invoice" and preview.prorated)
        return preview.due if invoiced else 0


def plan_change(
    reading: StripeSubscription, target: PlanTarget, offer: Offer, *, downgrade: Literal["period_end", "now"]
) -> PlanChange:
    """The change that a person orders; ``downgrade`` is when downgrades take effect.

    Raises:
        SubscriptionHasEnded, SubscriptionNotChangeable: the subscription does not allow it.
        PriceNotSold, PriceInactive, CurrencyNotOffered, QuantityNotAllowed: the price does not.
    """
    _require_changeable(reading)
    index = _item_index(reading, target)
    item, old = reading.items[index], reading.terms[index]
    same_price = item.stp_price_id == target.price_id
    if same_price:
        new, quantity = old, offer.require_quantity(target.quantity, present=item.quantity)
    else:
        wanted = item.quantity if target.quantity is None and not offer.price.metered else target.quantity
        quantity = offer.require_for_sale(wanted)
        new = _terms_of(offer.price, reading.currency)
    if not same_price and any(each.stp_price_id == target.price_id for each in reading.items):
        raise SubscriptionNotChangeable(reason="price_in_use")
    if new.metered != old.metered:
        raise SubscriptionNotChangeable(reason="usage_type")
    change = ItemChange(
        item_id=item.stp_item_id, old_price_id=item.stp_price_id, price_id=target.price_id, quantity=quantity
    )
    changes_item = (item.stp_price_id, item.quantity) != (target.price_id, quantity)
    later = (
        downgrade == "period_end" and reading.status == "active" and is_downgrade((old, item.quantity), (new, quantity))
    )
    planned = reading.planned is not None and (target.price_id, quantity) in reading.planned.items
    effect: Effect = "period_end" if later else "now"
    if not changes_item and reading.planned is None:
        effect = "none"
    interval = new.interval, new.interval_count
    return PlanChange(
        item=change,
        effect=effect,
        interval=interval,
        changes_item=changes_item,
        changes_product=not same_price and offer.price.product_id != item.stp_product_id,
        new_cycle=effect == "now" and reading.status == "active" and interval != (old.interval, old.interval_count),
        pending=changes_item and reading.pending.get(item.stp_item_id) == (target.price_id, quantity),
        planned=planned,
    )


def is_downgrade(old: tuple[ItemTerms, int | None], new: tuple[ItemTerms, int | None]) -> bool:
    """Whether the interval is shorter, or the amount lower for the same interval.

    These are the conditions of Stripe's portal for changes at the end of the period
    (https://docs.stripe.com/api/customer_portal/configurations/object: ``schedule_at_period_end``). Amounts that are
    not known in advance, of metered and tiered prices, make no downgrade.
    """
    (before, old_quantity), (after, new_quantity) = old, new
    old_days = _DAYS.get(before.interval, 0) * before.interval_count
    new_days = _DAYS.get(after.interval, 0) * after.interval_count
    if old_days != new_days:
        return new_days < old_days
    if before.metered or before.unit_amount is None or after.unit_amount is None:
        return False
    return after.unit_amount * (new_quantity or 0) < before.unit_amount * (old_quantity or 0)


def proration_time(reading: StripeSubscription, at: datetime) -> datetime:
    """The time of a change for its prorations: in whole seconds, and within the current period by Stripe's clock."""
    return max(at.replace(microsecond=0), reading.period_start)


def _require_changeable(reading: StripeSubscription) -> None:
    if reading.status in ENDED:
        raise SubscriptionHasEnded
    if reading.status not in _CHANGEABLE:
        raise SubscriptionNotChangeable(reason="status", status=reading.status)
    if is_planned_to_end(reading):
        raise SubscriptionNotChangeable(reason="cancellation_planned")
    if reading.planned is not None and not reading.nests_schedule:
        raise SubscriptionNotChangeable(reason="schedule")


def _item_index(reading: StripeSubscription, target: PlanTarget) -> int:
    prices = [item.stp_price_id for item in reading.items]
    for price_id in (target.replaces, target.price_id):
        if price_id in prices:
            return prices.index(price_id)
    if target.replaces is None and len(prices) == 1:
        return 0
    raise SubscriptionNotChangeable(reason="item")


def _terms_of(price: StripePrice, currency: str) -> ItemTerms:
    if price.recurring is None:
        raise SubscriptionNotChangeable(reason="one_time")
    amount = price.amounts.get(currency)
    if amount is None:
        raise CurrencyNotOffered(currency=currency)
    return ItemTerms(
        interval=price.recurring.interval,
        interval_count=price.recurring.interval_count,
        unit_amount=amount.unit_amount,
        metered=price.metered,
    )
