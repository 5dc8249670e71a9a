"""Store of disputes."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.disputes.models import Dispute
from services.billing.payments.store import LIST_INDEXES, PageQuery, newest_first
from shared.documents import Rows


class Disputes(Rows[Dispute]):
    """The collection ``disputes``: one document for each Stripe dispute."""

    COLLECTION: Final = "disputes"
    INDEXES: Final = (
        IndexModel([("stpDisputeId", ASCENDING)], unique=True),
        IndexModel([("stpPaymentIntentId", ASCENDING)]),
        *LIST_INDEXES,
    )

    async def find_by_stripe_id(self, dispute_id: str) -> Dispute | None:
        """The record of a Stripe dispute."""
        return await self._one({"stpDisputeId": {"$eq": dispute_id}})

    async def of_payment(self, intent_id: str) -> list[Dispute]:
        """The disputes about a payment intent, in no order."""
        return await self._all(self._collection.find({"stpPaymentIntentId": {"$eq": intent_id}}))

    async def page(self, query: PageQuery) -> list[Dispute]:
        """A page of disputes, as ``newest_first``."""
        return [self._read(document) for document in await newest_first(self._collection, query)]
