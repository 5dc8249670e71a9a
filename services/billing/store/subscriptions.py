"""How are subscriptions, and the turns of those who pay for them, kept?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.models.subscriptions import Subscription
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.documents import Rows
from shared.messages.billing.errors import SubscriptionNotFound
from shared.mongo import Database

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "subscriptions": [
        IndexModel([("stpSubscriptionId", ASCENDING)], unique=True),
        IndexModel([("userId", ASCENDING)]),
        IndexModel([("stpCustomerId", ASCENDING)]),
        IndexModel([("stpCreatedAt", ASCENDING)]),
    ],
    "payers": [],
}


class Subscriptions(Rows[Subscription]):
    """The collection ``subscriptions``."""

    def __init__(self, database: Database) -> None:
        super().__init__(database["subscriptions"], Subscription)
        self._by_id = BatchLoader(self._collection)
        self._by_stripe_id = BatchLoader(self._collection, "stpSubscriptionId")
        self._by_user = BatchLoader(self._collection, "userId")

    async def get(self, subscription_id: str) -> Subscription:
        """A subscription by our id; SubscriptionNotFound if there is none."""
        document = await self._by_id.find_one(subscription_id)
        if document is None:
            raise SubscriptionNotFound
        return self._read(document)

    async def find(self, subscription_id: str) -> Subscription | None:
        """A subscription by our id or by Stripe's."""
        ours, theirs = await asyncio.gather(
            self._by_id.find_one(subscription_id), self._by_stripe_id.find_one(subscription_id)
        )
        return self._read_or_none(ours or theirs)

    async def find_by_stripe_id(self, stripe_id: str) -> Subscription | None:
        """The record of a subscription of Stripe's."""
        return self._read_or_none(await self._by_stripe_id.find_one(stripe_id))

    async def of_user(self, user_id: str) -> list[Subscription]:
        """All subscriptions that a user has or had, in no order."""
        return [self._read(document) for document in await self._by_user.find(user_id)]


class Payers:
    """The collection ``payers``: one row for each user who ever had a live subscription.

    Subscriptions of one user may come to life at once, through two customers and hence under two keys, and each would
    be decided on without the other. So every such decision writes this row: the second one runs again and sees the
    first.
    """

    def __init__(self, database: Database) -> None:
        self._collection = database["payers"]

    async def take_turn(self, user_id: str, work: Work) -> None:
        """Make this work the only one that decides about a user; to be called before the subscriptions are read."""
        row = await self._collection.find_one({"_id": {"$eq": user_id}})
        if row is None:
            work.insert(self._collection, {"_id": user_id, "updatedAt": work.now, "version": 1})
        else:
            work.replace(self._collection, {**row, "updatedAt": work.now}, version=row["version"])
