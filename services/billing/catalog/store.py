"""Stores of products and prices, and a cache of the plans made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.catalog.models import CatalogSync, Plan, PriceRecord, ProductRecord, plans_of
from services.billing.stripe_api.catalog_models import StripePrice, StripeProduct
from shared.documents import Rows
from shared.messages.billing.plans import PlansView
from shared.mongo import Document
from shared.telemetry import log

MAX_PRODUCTS: Final = 1_000
MAX_PRICES: Final = 5_000
"""Active products and prices in memory; more are read, but not listed."""
FRESH_SECONDS: Final = 1.0
"""Age at which the plans are loaded again."""
LOAD_SHARE: Final = 0.05
"""Highest share of the time that loading takes: a large catalog is loaded less often."""
_NEWEST_FIRST: Final = [("stpCreatedAt", DESCENDING)]


class Products(Rows[ProductRecord]):
    """The collection ``stripe_products``; its IDs are Stripe's."""

    COLLECTION: Final = "stripe_products"
    _ACTIVE: Final[Document] = {"product.active": True, "deletedAt": None}
    INDEXES: Final = (IndexModel([("stpCreatedAt", ASCENDING)]),)

    async def active(self) -> list[StripeProduct]:
        """The active products, newest first; ``MAX_PRODUCTS`` at most."""
        found = self._collection.find(self._ACTIVE).sort(_NEWEST_FIRST).limit(MAX_PRODUCTS)
        return [record.product for record in await self._all(found)]


class Prices(Rows[PriceRecord]):
    """The collection ``stripe_prices``; its IDs are Stripe's."""

    COLLECTION: Final = "stripe_prices"
    _ACTIVE: Final[Document] = {"price.active": True, "deletedAt": None, "price.recurring": {"$ne": None}}
    INDEXES: Final = (IndexModel([("stpCreatedAt", ASCENDING)]), IndexModel([("price.productId", ASCENDING)]))

    async def active(self) -> list[StripePrice]:
        """The active recurring prices, newest first; ``MAX_PRICES`` at most."""
        found = self._collection.find(self._ACTIVE).sort(_NEWEST_FIRST).limit(MAX_PRICES)
        return [record.price for record in await self._all(found)]


class CatalogSyncs(Rows[CatalogSync]):
    """The collection ``stripe_catalog``: one document about the last reading of the whole catalog."""

    COLLECTION: Final = "stripe_catalog"
    INDEXES: Final = ()
    ID: Final = "account"


class Catalog:
    """Products, prices and plans for the other capabilities of billing.

    Plans are kept in memory and are ``FRESH_SECONDS`` old at most. Everything else is one read by ID.

    Args:
        products: the store of products.
        prices: the store of prices.
        listed: the products of NEST_STRIPE_PRODUCTS; empty for no setting.
        trials: days of the trials of prices for which Stripe has none, by the price's ID.
    """

    def __init__(
        self, products: Products, prices: Prices, *, listed: frozenset[str], trials: Mapping[str, int]
    ) -> None:
        self.products = products
        self.prices = prices
        self._listed = listed
        self._trials = trials
        self._plans: tuple[Plan, ...] = ()
        self._view = PlansView(plans=())
        self._offered: dict[str, StripePrice] = {}
        self._by_product: dict[str, Plan] = {}
        self._loading: asyncio.Task[None] | None = None
        self._fresh_until = float("-inf")

    async def plans(self) -> tuple[Plan, ...]:
        """The plans that are on sale, in the order in which to show them."""
        await self._refresh()
        return self._plans

    async def plans_view(self) -> PlansView:
        """The plans that are on sale, for apps."""
        await self._refresh()
        return self._view

    async def price(self, price_id: str) -> StripePrice | None:
        """A price, also one that is archived or deleted; None if none was recorded."""
        await self._refresh()
        offered = self._offered.get(price_id)
        if offered is not None:
            return offered
        record = await self.prices.find(price_id)
        return None if record is None else record.price

    async def product(self, product_id: str) -> StripeProduct | None:
        """A product, also one that is archived or deleted; None if none was recorded."""
        await self._refresh()
        plan = self._by_product.get(product_id)
        if plan is not None:
            return plan.product
        record = await self.products.find(product_id)
        return None if record is None else record.product

    async def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._fresh_until:
            return
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        # Shielded: if one caller is cancelled, the others still need the result.
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            products, prices = await asyncio.gather(self.products.active(), self.prices.active())
            if len(products) == MAX_PRODUCTS or len(prices) == MAX_PRICES:
                log.warning("too many active products or prices, older ones are not listed")
            self._plans = plans_of(products, prices, listed=self._listed)
            self._view = PlansView(plans=tuple(plan.view(self._trials) for plan in self._plans))
            self._offered = {price.id: price for plan in self._plans for price in plan.prices}
            self._by_product = {plan.product.id: plan for plan in self._plans}
            # Counted from the beginning: a change that is committed during the load is seen by the next one.
            took = loop.time() - began
            self._fresh_until = began + max(FRESH_SECONDS, took / LOAD_SHARE)
        finally:
            self._loading = None
