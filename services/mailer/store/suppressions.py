"""How are suppressed addresses kept?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pymongo import DESCENDING, IndexModel

from services.mailer.models.suppressions import Suppression
from shared.bus.work import Work
from shared.messages.mailer.errors import SuppressionNotFound
from shared.messages.mailer.suppressions import ListSuppressions
from shared.mongo import Database, Document


class Suppressions:
    """The collection ``suppressions``, a row for each address."""

    COLLECTION: Final = "suppressions"
    INDEXES: Final = (IndexModel([("deliveryId", DESCENDING)]),)

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]

    async def find(self, hashes: Sequence[str]) -> Suppression | None:
        """Why nothing is sent to an address, if nothing is.

        Args:
            hashes: all that the address may be kept under: one for each sealing key.
        """
        document = await self._collection.find_one({"_id": {"$in": list(hashes)}})
        return None if document is None else _suppression(document)

    async def get_shown_by(self, delivery_id: str) -> Suppression:
        """The suppression that a mail has shown the need of.

        Raises:
            SuppressionNotFound: it has not, or it is lifted.
        """
        document = await self._collection.find_one({"deliveryId": {"$eq": delivery_id}})
        if document is None:
            raise SuppressionNotFound
        return _suppression(document)

    async def page(self, query: ListSuppressions, hashes: Sequence[str] | None) -> list[Suppression]:
        """The suppressions asked for, those of the newest mails first, and one more if there are more.

        Args:
            query: what is asked for.
            hashes: all that its address may be kept under; None for every address.
        """
        wanted: Document = {}
        if hashes is not None:
            wanted["_id"] = {"$in": list(hashes)}
        if query.cause is not None:
            wanted["cause"] = {"$eq": query.cause}
        if query.cursor is not None:
            wanted["deliveryId"] = {"$lt": query.cursor}
        if query.since is not None or query.until is not None:
            bounds = {"$gte": query.since, "$lt": query.until}
            wanted["since"] = {operator: moment for operator, moment in bounds.items() if moment is not None}
        found = self._collection.find(wanted).sort("deliveryId", DESCENDING).limit(query.limit + 1)
        return [_suppression(document) async for document in found]

    def add(self, suppression: Suppression, work: Work) -> None:
        """Insert a row; if somebody else did so first, the handler runs again."""
        work.insert(self._collection, _document(suppression))

    def save(self, suppression: Suppression, work: Work) -> None:
        """Replace a row; if it moved meanwhile, the handler runs again."""
        work.replace(self._collection, _document(suppression), version=suppression.version)

    def lift(self, suppression: Suppression, work: Work) -> None:
        """Remove a row; if it moved meanwhile, the handler runs again."""
        work.delete(self._collection, suppression.id, version=suppression.version)


def _document(suppression: Suppression) -> Document:
    return {
        "_id": suppression.id,
        "cause": suppression.cause,
        "deliveryId": suppression.delivery_id,
        "since": suppression.since,
        "version": suppression.version,
    }


def _suppression(document: Document) -> Suppression:
    return Suppression(
        id=document["_id"],
        cause=document["cause"],
        delivery_id=document["deliveryId"],
        since=document["since"],
        version=document["version"],
    )
