"""Stores of subscriptions and of the per-user rows that order decisions about them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.subscriptions.models import LIVE, Subscription
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.documents import Rows
from shared.messages.billing.errors import SubscriptionNotFound
from shared.mongo import Database, Document


class Subscriptions(Rows[Subscription], missing=SubscriptionNotFound):
    """The collection ``subscriptions``: one document for each Stripe subscription.

    ``products`` are those that Nest sells; empty for all.
    """

    COLLECTION: Final = "subscriptions"
    INDEXES: Final = (
        IndexModel([("stpSubscriptionId", ASCENDING)], unique=True),
        IndexModel([("userId", ASCENDING)]),
        IndexModel([("stpCustomerId", ASCENDING)]),
        IndexModel([("stpCreatedAt", ASCENDING)]),
    )

    def __init__(self, database: Database, products: frozenset[str] = frozenset()) -> None:
        super().__init__(database)
        sold: Document = {"stpProductId": {"$in": sorted(products)}} if products else {}
        self._by_stripe_id = BatchLoader(self._collection, "stpSubscriptionId")
        self._by_user = BatchLoader(self._collection, "userId", sold)

    async def find(self, subscription_id: str) -> Subscription | None:
        """The subscription with this ID, ours or Stripe's."""
        by_our_id, by_stripe_id = await asyncio.gather(
            self._by_id.find_one(subscription_id), self._by_stripe_id.find_one(subscription_id)
        )
        return self._read_or_none(by_our_id or by_stripe_id)

    async def find_by_stripe_id(self, stripe_id: str) -> Subscription | None:
        """The record of a Stripe subscription."""
        return self._read_or_none(await self._by_stripe_id.find_one(stripe_id))

    async def of_user(self, user_id: str) -> list[Subscription]:
        """A user's subscriptions of Nest's products, ended ones included, in no order."""
        return [self._read(document) for document in await self._by_user.find(user_id)]

    async def paused_of_customer(self, customer_id: str) -> list[Subscription]:
        """The paused subscriptions of a Stripe customer."""
        return await self._all(self._collection.find({"stpCustomerId": {"$eq": customer_id}, "status": "paused"}))

    async def live_after(self, subscription_id: str, *, limit: int) -> list[Subscription]:
        """Subscriptions with a live status, in the order of their IDs, after one; for runs over all of them."""
        query = {"_id": {"$gt": subscription_id}, "status": {"$in": sorted(LIVE)}}
        return await self._all(self._collection.find(query).sort("_id", ASCENDING).limit(limit))

    async def customers_of(self, user_id: str) -> list[str]:
        """Stripe's IDs of the customers of a user's subscriptions, of whatever product."""
        return await self._collection.distinct("stpCustomerId", {"userId": {"$eq": user_id}})

    async def customers_of_others(self, user_id: str, customer_ids: Sequence[str]) -> frozenset[str]:
        """Those of these customers of which somebody other than a user has a subscription, of whatever product."""
        if not customer_ids:
            return frozenset()
        query = {"stpCustomerId": {"$in": list(customer_ids)}, "userId": {"$ne": user_id}}
        return frozenset(await self._collection.distinct("stpCustomerId", query))


@dataclass(frozen=True, slots=True, kw_only=True)
class PayerRow:
    """A row of ``payers``, which exists for its version."""

    id: str
    updated_at: datetime
    version: int = 1


class Payers(Rows[PayerRow]):
    """The collection ``payers``: one row for each user who ever had a live subscription.

    Two subscriptions of one user may become live at the same time, through two customers and therefore under two
    ordering keys, and neither handler would see the other subscription. Every such decision writes this row, so the
    second handler runs again and sees the first subscription.
    """

    COLLECTION: Final = "payers"
    INDEXES: Final = ()

    async def serialize(self, user_id: str, work: Work) -> None:
        """Serialize this work with all others that decide about a user; call it before reading the subscriptions."""
        row = await self.find(user_id)
        if row is None:
            self.add(PayerRow(id=user_id, updated_at=work.now), work)
        else:
            self.save(replace(row, updated_at=work.now), work)
