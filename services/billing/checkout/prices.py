"""Prices of a checkout, from the catalog, else from Stripe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from services.billing.catalog.models import MARK
from services.billing.checkout.models import SoldPrice
from services.billing.context import Billing
from services.billing.stripe_api.account import Stripe
from services.billing.stripe_api.catalog_models import StripePrice, StripeProduct
from services.billing.stripe_api.subscription_changes import TRIAL_DAYS
from shared.messages.billing.checkout import OrderedItem
from shared.messages.billing.errors import PriceNotFound


async def prices_of(items: Sequence[OrderedItem], stripe: Stripe, billing: Billing) -> list[SoldPrice]:
    """The prices of the ordered items, in their order.

    Raises:
        PriceNotFound: Stripe has no such price in this mode.
        StripeUnavailable: as ``Stripe``.
    """
    return list(await asyncio.gather(*(_price(item.price_id, stripe, billing) for item in items)))


async def _price(price_id: str, stripe: Stripe, billing: Billing) -> SoldPrice:
    price = await billing.catalog.price(price_id)
    if price is None or not price.active:
        # The catalog may not have it yet.
        price = await stripe.price(price_id)
    if price is None:
        raise PriceNotFound(price_id=price_id)
    product = await billing.catalog.product(price.product_id)
    if product is None or not product.active:
        product = await stripe.product(price.product_id)
    recurring = price.recurring
    trial_days = None if recurring is None else recurring.trial_days
    if trial_days is None and price_id == billing.trial_price:
        trial_days = TRIAL_DAYS
    return SoldPrice(
        id=price.id,
        product_id=price.product_id,
        currency=price.currency,
        interval=None if recurring is None else (recurring.interval, recurring.interval_count),
        trial_days=trial_days,
        metered=price.metered,
        active=price.active and product is not None and product.active,
        sold=billing.sells(price.product_id) and not (product is not None and _excluded(price, product)),
    )


def _excluded(price: StripePrice, product: StripeProduct) -> bool:
    return "false" in (price.metadata.get(MARK), product.metadata.get(MARK))
