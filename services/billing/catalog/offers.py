"""Prices that somebody orders, from the catalog, else from Stripe."""

from __future__ import annotations

from services.billing.catalog.models import Offer
from services.billing.context import Billing
from services.billing.stripe_api.account import Stripe
from shared.messages.billing.errors import PriceNotFound


async def offer_of(price_id: str, stripe: Stripe, billing: Billing) -> Offer:
    """A price with its product. What the catalog lacks, or has as archived, is read from Stripe.

    Raises:
        PriceNotFound: Stripe has no such price in this mode.
        StripeRefused, StripeUnavailable: as ``Stripe``.
    """
    price = await billing.catalog.price(price_id)
    if price is None or not price.active:
        # The catalog may not have it yet.
        price = await stripe.price(price_id)
    if price is None:
        raise PriceNotFound(price_id=price_id)
    product = await billing.catalog.product(price.product_id)
    if product is None or not product.active:
        product = await stripe.product(price.product_id)
    return Offer(price=price, product=product, listed=billing.sells(price.product_id))
