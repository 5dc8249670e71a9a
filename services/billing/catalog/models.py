"""Rules of the catalog: which products and prices of Stripe are plans of Nest, and their order.

A product is one of Nest's plans if it is active and

1. with NEST_STRIPE_PRODUCTS: the setting lists it;
2. without the setting: its metadata has ``nest=true``, or no active product's metadata has that;
3. in both cases: its metadata does not have ``nest=false``, and it has an active recurring price without
   ``nest=false`` in its own metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self

from services.billing.stripe_api.catalog_models import PriceAmount, PriceTier, StripePrice, StripeProduct
from shared.messages.billing.errors import PriceInactive, PriceNotSold, QuantityNotAllowed
from shared.messages.billing.plans import (
    MAX_PLANS,
    MAX_PRICES,
    PlanAmount,
    PlanPrice,
    PlanTier,
    PlanView,
)
from shared.money import currency_decimals

MARK: Final = "nest"
"""Metadata of a product or price: ``true`` marks a plan of Nest, ``false`` excludes it."""
ORDER: Final = "nest_order"
"""Metadata of a product or price: a whole number; lower ones come first, and all of them before those without."""
MAX_QUANTITY: Final = "nest_max_quantity"
"""Metadata of a price, or of its product: the highest quantity (seats) that may be subscribed; 1 by default."""
QUANTITY_LIMIT: Final = 999_999
"""The highest quantity that Stripe Checkout accepts (https://docs.stripe.com/api/checkout/sessions/create)."""
SYNC_PERIOD_SECONDS: Final = 3600
"""Interval at which the whole catalog is read again: Stripe sends no event if the features of a product change."""
SYNC_ABANDONED_SECONDS: Final = 1800
"""A sync that has not ended after this time has lost its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRecord:
    """Our record of a product; ``id`` is Stripe's.

    Attributes:
        product: as it was last read.
        deleted_at: when Stripe was found to have it no longer.
        read_at: when that reading began.
    """

    id: str
    product: StripeProduct
    stp_created_at: datetime
    deleted_at: datetime | None = None
    read_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def first_seen(cls, product: StripeProduct, *, at: datetime) -> Self:
        """The record of a product that was read for the first time."""
        return cls(id=product.id, product=product, stp_created_at=product.created, read_at=at, updated_at=at)

    def matches(self, product: StripeProduct) -> bool:
        """Whether another reading would change nothing."""
        return self.deleted_at is None and self.product == product

    def follow(self, product: StripeProduct, *, at: datetime) -> Self:
        """The record after another reading."""
        return replace(self, product=product, deleted_at=None, read_at=at, updated_at=at)

    def deleted(self, *, at: datetime) -> Self:
        """The record after Stripe no longer had the product."""
        return replace(self, deleted_at=at, read_at=at, updated_at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRecord:
    """Our record of a price; fields as in ``ProductRecord``."""

    id: str
    price: StripePrice
    stp_created_at: datetime
    deleted_at: datetime | None = None
    read_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def first_seen(cls, price: StripePrice, *, at: datetime) -> Self:
        """The record of a price that was read for the first time."""
        return cls(id=price.id, price=price, stp_created_at=price.created, read_at=at, updated_at=at)

    def matches(self, price: StripePrice) -> bool:
        """Whether another reading would change nothing."""
        return self.deleted_at is None and self.price == price

    def follow(self, price: StripePrice, *, at: datetime) -> Self:
        """The record after another reading."""
        return replace(self, price=price, deleted_at=None, read_at=at, updated_at=at)

    def deleted(self, *, at: datetime) -> Self:
        """The record after Stripe no longer had the price."""
        return replace(self, deleted_at=at, read_at=at, updated_at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogSync:
    """The last reading of the whole catalog; ``id`` is constant."""

    id: str
    began_at: datetime
    finished_at: datetime | None = None
    version: int = 1

    def due(self, at: datetime) -> bool:
        """Whether another one should begin."""
        if self.finished_at is None:
            return (at - self.began_at).total_seconds() >= SYNC_ABANDONED_SECONDS
        return (at - self.finished_at).total_seconds() >= SYNC_PERIOD_SECONDS


@dataclass(frozen=True, slots=True)
class Plan:
    """A product that Nest sells, with the prices for which it is sold, both in the order of ``list_plans``."""

    product: StripeProduct
    prices: tuple[StripePrice, ...]

    def view(self, trials: Mapping[str, int]) -> PlanView:
        """The plan for apps. ``trials`` are the days of trials by price, where Stripe's price has none."""
        return PlanView(
            product_id=self.product.id,
            name=self.product.name,
            description=self.product.description,
            marketing_features=self.product.marketing_features,
            features=self.product.features,
            unit_label=self.product.unit_label,
            prices=tuple(_price_view(price, self.product, trials) for price in self.prices),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A price that somebody orders, with its product.

    Attributes:
        product: None if Stripe does not have it.
        listed: whether NEST_STRIPE_PRODUCTS allows the product.
    """

    price: StripePrice
    product: StripeProduct | None
    listed: bool

    def require_for_sale(self, quantity: int | None) -> int | None:
        """Check that the price is sold in this quantity; returns the quantity, which is None for a metered price.

        A quantity that is left out is 1.

        Raises:
            PriceNotSold: Nest does not sell it.
            PriceInactive: price or product is archived.
            QuantityNotAllowed: as ``require_quantity``.
        """
        products = () if self.product is None else (self.product,)
        if not self.listed or any(mark_of(each.metadata) is False for each in (self.price, *products)):
            raise PriceNotSold(price_id=self.price.id)
        if not self.price.active or not any(each.active for each in products):
            raise PriceInactive(price_id=self.price.id)
        return self.require_quantity(quantity)

    def require_quantity(self, quantity: int | None, *, present: int | None = None) -> int | None:
        """Check the quantity only, for a subscription that has the price already, in the ``present`` quantity.

        The present quantity is the default. It stays allowed if the limit was lowered.

        Raises:
            QuantityNotAllowed: the price is metered, or the quantity exceeds ``nest_max_quantity``.
        """
        limit = max_quantity(self.price, self.product)
        if limit is None:
            if quantity is not None:
                raise QuantityNotAllowed(price_id=self.price.id, max_quantity=None)
            return None
        wanted = quantity or present or 1
        if wanted > max(limit, present or 0):
            raise QuantityNotAllowed(price_id=self.price.id, max_quantity=limit)
        return wanted


def plans_of(
    products: Iterable[StripeProduct], prices: Iterable[StripePrice], *, listed: frozenset[str]
) -> tuple[Plan, ...]:
    """The plans of Nest in their order, by the rule of this module.

    Plans and prices are ordered by ``nest_order``, then by amount in the default currency, then by name or ID.
    ``listed`` are the products of NEST_STRIPE_PRODUCTS; empty for no setting. At most ``MAX_PLANS`` plans, with
    ``MAX_PRICES`` prices each.
    """
    active = [product for product in products if product.active and mark_of(product.metadata) is not False]
    if listed:
        chosen = [product for product in active if product.id in listed]
    else:
        chosen = [product for product in active if mark_of(product.metadata)] or active
    by_product: dict[str, list[StripePrice]] = {product.id: [] for product in chosen}
    for price in prices:
        if price.active and price.recurring is not None and mark_of(price.metadata) is not False:
            by_product.get(price.product_id, []).append(price)
    plans = [
        Plan(product, tuple(sorted(by_product[product.id], key=_price_key)[:MAX_PRICES]))
        for product in chosen
        if by_product[product.id]
    ]
    return tuple(sorted(plans, key=_plan_key)[:MAX_PLANS])


def max_quantity(price: StripePrice, product: StripeProduct | None) -> int | None:
    """The highest quantity of a price that may be subscribed; None for a metered price, which has no quantity.

    Without a limit in the metadata it is ``QUANTITY_LIMIT``, and with an unreadable one 1.
    """
    if price.metered:
        return None
    given = [each.metadata[MAX_QUANTITY] for each in (price, product) if each and MAX_QUANTITY in each.metadata]
    numbers = [number for number in map(_whole_number, given) if number is not None and number > 0]
    if numbers:
        return min(numbers[0], QUANTITY_LIMIT)
    return 1 if given else QUANTITY_LIMIT


def mark_of(metadata: dict[str, str]) -> bool | None:
    """Whether the metadata of a product or price mark it as a plan, or exclude it; None if they do neither."""
    return {"true": True, "false": False}.get(metadata.get(MARK, "").strip().lower())


def _whole_number(text: str | None) -> int | None:
    digits = (text or "").strip()
    return int(digits) if digits.removeprefix("-").isdecimal() and digits.isascii() and len(digits) <= 9 else None  # noqa: PLR2004 -- fits every limit


_SortKey = tuple[bool, int, float, str]


def _price_key(price: StripePrice) -> _SortKey:
    order = _whole_number(price.metadata.get(ORDER))
    return (order is None, order or 0, _lowest(price.amounts[price.currency]), price.id)


def _plan_key(plan: Plan) -> _SortKey:
    order = _whole_number(plan.product.metadata.get(ORDER))
    lowest = min(_lowest(price.amounts[price.currency]) for price in plan.prices)
    return (order is None, order or 0, lowest, f"{plan.product.name}/{plan.product.id}")


def _lowest(amount: PriceAmount) -> float:
    """The amount of the first unit."""
    first: PriceAmount | PriceTier = amount.tiers[0] if amount.tiers else amount
    flat = first.flat_amount_decimal if isinstance(first, PriceTier) else None
    return float(first.unit_amount_decimal or 0) + float(flat or 0)


def _price_view(price: StripePrice, product: StripeProduct, trials: Mapping[str, int]) -> PlanPrice:
    recurring = price.recurring
    assert recurring is not None  # noqa: S101 -- plans have recurring prices only
    return PlanPrice(
        price_id=price.id,
        lookup_key=price.lookup_key,
        interval=recurring.interval,
        interval_count=recurring.interval_count,
        usage_type=recurring.usage_type,
        trial_days=recurring.trial_days or trials.get(price.id),
        max_quantity=max_quantity(price, product),
        divide_by=price.divide_by,
        round=price.round,
        tiers_mode=price.tiers_mode,
        currency=price.currency,
        amounts={code: _amount_view(code, amount) for code, amount in price.amounts.items()},
    )


def _amount_view(currency: str, amount: PriceAmount) -> PlanAmount:
    return PlanAmount(
        unit_amount=amount.unit_amount,
        unit_amount_decimal=amount.unit_amount_decimal,
        decimals=currency_decimals(currency),
        tax_behavior=amount.tax_behavior,
        tiers=tuple(
            PlanTier(
                up_to=tier.up_to,
                unit_amount=tier.unit_amount,
                unit_amount_decimal=tier.unit_amount_decimal,
                flat_amount=tier.flat_amount,
                flat_amount_decimal=tier.flat_amount_decimal,
            )
            for tier in amount.tiers
        ),
    )
