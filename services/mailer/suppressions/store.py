"""MongoDB store of the suppression list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymongo import DESCENDING, IndexModel

from services.mailer.suppressions.models import Suppression
from shared.documents import Rows
from shared.messages.mailer.errors import SuppressionNotFound
from shared.messages.mailer.suppressions import ListSuppressions
from shared.mongo import Document
from shared.paging import NewestFirst


class Suppressions(Rows[Suppression]):
    """The collection ``suppressions``: one document per suppressed address."""

    COLLECTION: Final = "suppressions"
    _ORDER: Final = NewestFirst("since", "deliveryId")
    INDEXES: Final = (IndexModel([("deliveryId", DESCENDING)]), _ORDER.index(), _ORDER.index("cause"))

    async def find(self, hashes: Sequence[str]) -> Suppression | None:
        """Return the suppression of an address by its hashes under every sealing key, or None."""
        return await self._one({"_id": {"$in": list(hashes)}})

    async def get_by_delivery(self, delivery_id: str) -> Suppression:
        """Return the suppression that a delivery caused.

        Raises:
            SuppressionNotFound: the delivery caused none, or it has been lifted.
        """
        suppression = await self._one({"deliveryId": {"$eq": delivery_id}})
        if suppression is None:
            raise SuppressionNotFound
        return suppression

    async def list_page(self, query: ListSuppressions, hashes: Sequence[str] | None) -> list[Suppression]:
        """Return a page of suppressions, newest first, plus one more if there is a next page.

        ``hashes`` are the hashes of the address under every sealing key; None for all addresses.

        Raises:
            InvalidCursor: no page ended with the query's cursor.
        """
        conditions: Document = {}
        if hashes is not None:
            conditions["_id"] = {"$in": list(hashes)}
        if query.cause is not None:
            conditions["cause"] = {"$eq": query.cause}
        found = await self._ORDER.page(
            self._collection,
            conditions,
            limit=query.limit,
            cursor=query.cursor,
            since=query.since,
            until=query.until,
        )
        return list(map(self._read, found))
