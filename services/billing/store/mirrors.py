"""How are our records of Stripe's objects read many at a time, to be compared with Stripe's lists?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any, Final, Generic, TypeVar

from pymongo import ASCENDING, DESCENDING

from services.billing.models.disputes import Dispute
from services.billing.models.mappings import ProviderMapping
from services.billing.models.payments import Payment
from services.billing.models.subscriptions import Subscription
from services.billing.models.trials import Trial
from shared.documents import entity_of
from shared.mongo import Collection, Database, Document

Entity = TypeVar("Entity")
MOST: Final = 10_000
"""So many records in one stretch that Stripe does not list say enough: the account is likely a wrong one."""


class Mirror(Generic[Entity]):
    """The records of one kind.

    Args:
        collection: where.
        field: the one with Stripe's id.
        read: makes the entity of a document.
        where: what must hold besides.
    """

    def __init__(
        self,
        collection: Collection,
        field: str,
        read: Callable[[Document], Entity],
        where: Document | None = None,
    ) -> None:
        self._collection = collection
        self._field = field
        self._read = read
        self._where = where or {}

    async def find(self, stripe_id: str) -> Entity | None:
        """The record of one of Stripe's objects."""
        return (await self.of([stripe_id])).get(stripe_id)

    async def of(self, stripe_ids: Iterable[str]) -> dict[str, Entity]:
        """The records of these objects, by Stripe's ids, for those that have one."""
        found = self._collection.find({self._field: {"$in": list(stripe_ids)}, **self._where})
        return {document[self._field]: self._read(document) async for document in found}

    async def unlisted(
        self, listed: Iterable[str], *, made_from: datetime | None, made_until: datetime | None
    ) -> dict[str, str]:
        """Our ids, by Stripe's, of records that were made in Stripe in a stretch of time and are not in its list.

        Args:
            listed: the ids that are in the list.
            made_from: begin of the stretch; None: from the first day.
            made_until: its end; None: to this day.
        """
        bounds: dict[str, Any] = {}
        if made_from is not None:
            bounds["$gte"] = made_from
        if made_until is not None:
            bounds["$lte"] = made_until
        query = {self._field: {"$nin": list(listed)}, **({"stpCreatedAt": bounds} if bounds else {})}
        found = self._collection.find(query, {self._field: 1}).sort("stpCreatedAt", DESCENDING).limit(MOST)
        return {document[self._field]: document["_id"] async for document in found}

    async def after(self, our_id: str | None, *, limit: int) -> list[tuple[str, str]]:
        """Our id and Stripe's of the next records in the order of our ids."""
        query = self._where if our_id is None else {**self._where, "_id": {"$gt": our_id}}
        found = self._collection.find(query, {self._field: 1}).sort("_id", ASCENDING).limit(limit)
        return [(document["_id"], document[self._field]) async for document in found]

    async def several(self, statuses: Iterable[str], *, after: str | None, limit: int) -> list[str]:
        """The next users, in the order of their ids, who have more than one record with one of these statuses."""
        wanted: Document = {"status": {"$in": list(statuses)}}
        if after is not None:
            wanted["userId"] = {"$gt": after}
        steps: list[Document] = [
            {"$match": wanted},
            {"$group": {"_id": "$userId", "count": {"$sum": 1}}},
            {"$match": {"count": {"$gt": 1}}},
            {"$sort": {"_id": 1}},
            {"$limit": limit},
        ]
        return [str(document["_id"]) async for document in await self._collection.aggregate(steps)]


class Mirrors:
    """The records of every kind."""

    def __init__(self, database: Database) -> None:
        self.customers: Mirror[ProviderMapping] = Mirror(
            database["provider_mappings"],
            "providerValue",
            partial(entity_of, ProviderMapping),
            {"providerType": "stripe", "removedAt": None},
        )
        self.subscriptions: Mirror[Subscription] = Mirror(
            database["subscriptions"], "stpSubscriptionId", partial(entity_of, Subscription)
        )
        self.trials: Mirror[Trial] = Mirror(
            database["trials"],
            "stpSubscriptionId",
            partial(entity_of, Trial),
            {"stpSubscriptionId": {"$type": "string"}},
        )
        self.payments: Mirror[Payment] = Mirror(database["payments"], "stpPaymentIntentId", partial(entity_of, Payment))
        self.disputes: Mirror[Dispute] = Mirror(database["disputes"], "stpDisputeId", partial(entity_of, Dispute))
