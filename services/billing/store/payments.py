"""How are payments kept, and when their persons were last written to?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.models.payments import BETWEEN_MAILS, Payment
from services.billing.store.pages import Page, newest_first
from shared.bus.work import Work
from shared.documents import Rows
from shared.mongo import Database

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "payments": [
        IndexModel([("stpPaymentIntentId", ASCENDING)], unique=True),
        IndexModel([("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("userId", ASCENDING), ("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
        IndexModel([("stpCustomerId", ASCENDING), ("stpCreatedAt", DESCENDING), ("_id", DESCENDING)]),
    ],
    "failed_payment_mails": [],
}


class Payments(Rows[Payment]):
    """The collection ``payments``: one document for each payment intent of Stripe's."""

    def __init__(self, database: Database) -> None:
        super().__init__(database["payments"], Payment)

    async def find_by_stripe_id(self, intent_id: str) -> Payment | None:
        """The record of a payment intent."""
        return await self._one({"stpPaymentIntentId": {"$eq": intent_id}})

    async def page(self, page: Page) -> list[Payment]:
        """The payments asked for, newest in Stripe first, and one more if there are more."""
        return [self._read(document) for document in await newest_first(self._collection, page)]


class FailedPaymentMails:
    """The collection ``failed_payment_mails``: for each subscription, when its person was last told of a failure.

    Two payments of one subscription may fail at once, in two instances: both would write this document, and the one
    that comes second runs again and reads what the first has written.
    """

    def __init__(self, database: Database) -> None:
        self._collection = database["failed_payment_mails"]

    async def take(self, stripe_subscription_id: str, work: Work) -> bool:
        """Whether a mail may leave now: no other has within a day. If it may, this work has taken its place."""
        row = await self._collection.find_one({"_id": {"$eq": stripe_subscription_id}})
        if row is None:
            work.insert(self._collection, {"_id": stripe_subscription_id, "orderedAt": work.now, "version": 1})
            return True
        last: datetime = row["orderedAt"]
        if work.now - last < BETWEEN_MAILS:
            return False
        work.replace(self._collection, {**row, "orderedAt": work.now}, version=row["version"])
        return True
