"""Handlers of the catalog: the list of plans, and the reading of products and prices from Stripe."""

from __future__ import annotations

from dataclasses import replace

from services.billing.catalog.models import CatalogSync, PriceRecord, ProductRecord
from services.billing.catalog.store import CatalogSyncs
from services.billing.catalog.sync import CATALOG, other_mode, sync_price, sync_product
from services.billing.context import Billing
from services.billing.entitlements.sync import refresh_users_of
from services.billing.events.pending import follow
from services.billing.runs.steps import map_until_timeout
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.reschedule import reschedule
from shared.bus.work import Work
from shared.messages.billing.errors import StripeUnavailable
from shared.messages.billing.plans import FollowPrice, FollowProduct, ListPlans, PlansView, SyncCatalog
from shared.telemetry import log


async def list_plans(_query: ListPlans, _work: Work, billing: Billing) -> PlansView:
    """The plans that are on sale, from memory."""
    return await billing.catalog.plans_view()


async def follow_product(command: FollowProduct, work: Work, billing: Billing) -> None:
    """Read a product from Stripe, record it, and settle the pending events about it."""
    await follow(command, command.product_id, sync_product, work, billing)


async def follow_price(command: FollowPrice, work: Work, billing: Billing) -> None:
    """Read a price from Stripe, record it, and settle the pending events about it."""
    await follow(command, command.price_id, sync_price, work, billing)


async def sync_catalog(command: SyncCatalog, work: Work, billing: Billing) -> None:
    """Read a page of products or prices from Stripe, record what differs, and order the next page.

    Pages are read with low priority, so that they never delay a webhook. A command for the beginning does nothing while
    another sync is under way, or if one has just ended.
    """
    stored = await billing.catalog_syncs.find(CatalogSyncs.ID)
    begins = command.part == "products" and command.cursor is None
    if begins and stored is not None and not stored.due(work.now):
        return
    try:
        cursor, more = await _record_page(command, work, billing)
    except StripeUnavailable:
        reschedule(command, work)
        return
    except StripeRefused as refused:
        # The next start or sweep orders another sync.
        refused.report(part=command.part)
        return
    if begins:
        began = CatalogSync(id=CatalogSyncs.ID, began_at=work.now)
        if stored is None:
            billing.catalog_syncs.add(began, work)
        else:
            billing.catalog_syncs.save(replace(began, version=stored.version), work)
    if more:
        work.publish(SyncCatalog(key=CATALOG, part=command.part, cursor=cursor))
    elif command.part == "products":
        work.publish(SyncCatalog(key=CATALOG, part="prices"))
    elif stored is not None:
        billing.catalog_syncs.save(replace(stored, finished_at=work.now), work)
        log.info("stripe catalog read", seconds=round((work.now - stored.began_at).total_seconds()))


async def _record_page(command: SyncCatalog, work: Work, billing: Billing) -> tuple[str | None, bool]:
    """Record a page, or the part of it that was read in time; returns the last ID, and whether more objects follow.

    An object that differs from its record is read again on its own, since the record may be younger than the page.
    """
    stripe = billing.stripe.low_priority()
    page = await stripe.list_page(command.part, after=command.cursor)
    if command.part == "products":
        entries = [entry for entry in page.entries if billing.sells(entry["id"])]
        products = await map_until_timeout(entries, stripe.complete_product)
        for product in products:
            record = await billing.catalog.products.find(product.id)
            if other_mode(product, billing) or (record is not None and record.matches(product)):
                continue
            if record is None:
                refresh_users_of(None, product, work)
                billing.catalog.products.add(ProductRecord.first_seen(product, at=work.now), work)
            else:
                work.publish(FollowProduct(key=product.id, product_id=product.id))
        read = len(products)
    else:
        entries = [entry for entry in page.entries if billing.sells(entry["product"])]
        prices = await map_until_timeout(entries, stripe.complete_price)
        for price in prices:
            known = await billing.catalog.prices.find(price.id)
            if other_mode(price, billing) or (known is not None and known.matches(price)):
                continue
            if known is None:
                billing.catalog.prices.add(PriceRecord.first_seen(price, at=work.now), work)
            else:
                work.publish(FollowPrice(key=price.id, price_id=price.id))
        read = len(prices)
    if read < len(entries):
        return entries[read - 1]["id"], True
    return (page.entries[-1]["id"] if page.entries else None), page.more
