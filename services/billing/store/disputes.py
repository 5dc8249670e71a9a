"""How are disputes kept?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.models.disputes import Dispute
from services.billing.store.pages import Page, newest_first
from shared.documents import Rows
from shared.mongo import Database

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "disputes": [
        IndexModel([("stpDisputeId", ASCENDING)], unique=True),
        IndexModel([("stpPaymentIntentId", ASCENDING)]),
        IndexModel([("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("userId", ASCENDING), ("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("stpCustomerId", ASCENDING), ("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
    ]
}


class Disputes(Rows[Dispute]):
    """The collection ``disputes``: one document for each dispute of Stripe's."""

    def __init__(self, database: Database) -> None:
        super().__init__(database["disputes"], Dispute)

    async def find_by_stripe_id(self, dispute_id: str) -> Dispute | None:
        """The record of a dispute."""
        return await self._one({"stpDisputeId": {"$eq": dispute_id}})

    async def of_payment(self, intent_id: str) -> list[Dispute]:
        """The disputes about a payment intent, in no order."""
        return await self._all(self._collection.find({"stpPaymentIntentId": {"$eq": intent_id}}))

    async def page(self, page: Page) -> list[Dispute]:
        """The disputes asked for, newest in Stripe first, and one more if there are more."""
        return [self._read(document) for document in await newest_first(self._collection, page)]
