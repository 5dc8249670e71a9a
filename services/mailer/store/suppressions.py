"""How are suppressed addresses kept?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.mailer.models.suppressions import Suppression
from shared.mongo import Database, Document
from shared.work import Work


class Suppressions:
    """The collection ``suppressions``, a row for each address."""

    COLLECTION: Final = "suppressions"

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]

    async def find(self, hashes: Sequence[str]) -> Suppression | None:
        """Why nothing is sent to an address, if nothing is.

        Args:
            hashes: all that the address may be kept under: one for each sealing key.
        """
        document = await self._collection.find_one({"_id": {"$in": list(hashes)}})
        return None if document is None else _suppression(document)

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
