"""Synchronization of products and prices with Stripe.

A record depends only on what Stripe returns now, not on the event that caused the reading.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, Literal

from services.billing import metrics
from services.billing.catalog.models import PriceRecord, ProductRecord
from services.billing.catalog.store import CatalogSyncs
from services.billing.context import Billing
from services.billing.entitlements.sync import refresh_users_of
from services.billing.stripe_api.catalog_models import StripePrice, StripeProduct
from shared.bus.work import Work
from shared.messages.billing.plans import SyncCatalog

SyncOutcome = Literal["read", "missing", "other_product"]
CATALOG: Final = "stripe-catalog"
"""Ordering key of all SyncCatalog commands."""
UPGRADE_PAUSE: Final = timedelta(minutes=2)
"""Pause before the first sync of an installation that ran an older release: its instances do not know the command."""


async def sync_product(product_id: str, work: Work, billing: Billing) -> SyncOutcome:
    """Read a product from Stripe and record it; raises StripeUnavailable."""
    if not billing.sells(product_id):
        return _left_alone()
    products = billing.catalog.products
    # The record is loaded first: its version fences the reading.
    stored = await products.find(product_id)
    product = await billing.stripe.product(product_id)
    if product is None or other_mode(product, billing):
        if stored is not None and stored.deleted_at is None:
            products.save(stored.deleted(at=work.now), work)
        return "missing"
    refresh_users_of(None if stored is None else stored.product, product, work)
    if stored is None:
        products.add(ProductRecord.first_seen(product, at=work.now), work)
    elif not stored.matches(product):
        products.save(stored.follow(product, at=work.now), work)
    return "read"


async def sync_price(price_id: str, work: Work, billing: Billing) -> SyncOutcome:
    """Read a price from Stripe and record it; raises StripeUnavailable."""
    prices = billing.catalog.prices
    stored = await prices.find(price_id)
    price = await billing.stripe.price(price_id)
    if price is None or other_mode(price, billing):
        if stored is not None and stored.deleted_at is None:
            prices.save(stored.deleted(at=work.now), work)
        return "missing"
    if not billing.sells(price.product_id):
        return _left_alone()
    if stored is None:
        prices.add(PriceRecord.first_seen(price, at=work.now), work)
    elif not stored.matches(price):
        prices.save(stored.follow(price, at=work.now), work)
    return "read"


async def order_catalog_sync(work: Work, billing: Billing) -> None:
    """Order a reading of the whole catalog if none is under way and the last one is an hour old."""
    last = await billing.catalog_syncs.find(CatalogSyncs.ID)
    if last is not None and not last.due(work.now):
        return
    upgraded = last is None and await billing.schedule.find("sweep") is not None
    work.publish(SyncCatalog(key=CATALOG), at=work.now + UPGRADE_PAUSE if upgraded else None)


def other_mode(read: StripeProduct | StripePrice, billing: Billing) -> bool:
    """Whether an object belongs to the other mode, live or test; if so, count and log it."""
    kind = "product" if isinstance(read, StripeProduct) else "price"
    return metrics.count_other_mode(kind, livemode=read.livemode, expected=billing.livemode, stripe_id=read.id)


def _left_alone() -> SyncOutcome:
    metrics.LEFT_ALONE.labels("other_product").inc()
    return "other_product"
