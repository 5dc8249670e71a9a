"""How are disputes kept?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.models.disputes import Dispute
from services.billing.store.documents import document_of, entity_of
from services.billing.store.pages import Page, newest_first
from shared.mongo import Database
from shared.work import Work

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "disputes": [
        IndexModel([("stpDisputeId", ASCENDING)], unique=True),
        IndexModel([("stpPaymentIntentId", ASCENDING)]),
        IndexModel([("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("userId", ASCENDING), ("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("stpCustomerId", ASCENDING), ("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
    ]
}


class Disputes:
    """The collection ``disputes``: one document for each dispute of Stripe's."""

    def __init__(self, database: Database) -> None:
        self._collection = database["disputes"]

    async def find_by_stripe_id(self, dispute_id: str) -> Dispute | None:
        """The record of a dispute."""
        document = await self._collection.find_one({"stpDisputeId": {"$eq": dispute_id}})
        return None if document is None else entity_of(Dispute, document)

    async def of_payment(self, intent_id: str) -> list[Dispute]:
        """The disputes about a payment intent, in no order."""
        found = self._collection.find({"stpPaymentIntentId": {"$eq": intent_id}})
        return [entity_of(Dispute, document) async for document in found]

    async def page(self, page: Page) -> list[Dispute]:
        """The disputes asked for, newest in Stripe first, and one more if there are more."""
        return [entity_of(Dispute, document) for document in await newest_first(self._collection, page)]

    def add(self, dispute: Dispute, work: Work) -> None:
        """Insert; if the dispute has been recorded meanwhile, the handler runs again."""
        work.insert(self._collection, document_of(dispute))

    def save(self, dispute: Dispute, work: Work) -> None:
        """Replace, if nobody has changed the record meanwhile; otherwise the handler runs again."""
        work.replace(self._collection, document_of(dispute), version=dispute.version)
