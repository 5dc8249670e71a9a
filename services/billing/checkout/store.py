"""Store of checkouts, whose unique index allows each user one open checkout."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.checkout.models import Checkout
from shared.documents import Rows
from shared.indexes import expiry_index


class Checkouts(Rows[Checkout]):
    """The collection ``checkouts``: one document for each checkout, deleted after 90 days."""

    COLLECTION: Final = "checkouts"
    INDEXES: Final = (
        IndexModel([("openFor", ASCENDING)], unique=True, partialFilterExpression={"openFor": {"$type": "string"}}),
        IndexModel([("userId", ASCENDING)]),
        expiry_index("deletedAt"),
    )

    async def find_open(self, user_id: str) -> Checkout | None:
        """The pending or open checkout of a user."""
        return await self._one({"openFor": {"$eq": user_id, "$type": "string"}})

    async def replaced_any(self, user_id: str) -> bool:
        """Whether another order replaced a checkout of the user, whose page may be open in Stripe."""
        return await self._collection.find_one({"userId": {"$eq": user_id}, "status": "replaced"}) is not None

    async def newest_of(self, user_id: str, *, limit: int) -> list[Checkout]:
        """The newest checkouts of a user, newest first."""
        found = self._collection.find({"userId": {"$eq": user_id}})
        return await self._all(found.sort("createdAt", DESCENDING).limit(limit))
