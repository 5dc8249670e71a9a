"""How is it kept what the mails of a client look like?"""

from __future__ import annotations

from typing import Any, Final

from services.mailer.models.looks import LooksOfClient
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.mailer.branding import ClientLooks
from shared.mongo import Database, Document

_FIELDS: Final[dict[str, str]] = {
    "product_name": "productName",
    "sender_name": "senderName",
    "sender_address": "senderAddress",
    "support_address": "supportAddress",
    "accent_colour": "accentColour",
    "background_colour": "backgroundColour",
    "logo_url": "logoUrl",
    "locale": "locale",
}


class LooksOfClients:
    """The collection ``client_looks``, a row for each client that something was said of."""

    COLLECTION: Final = "client_looks"

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._collection)

    async def find(self, client_id: str) -> LooksOfClient | None:
        """What was said of a client, if anything was."""
        document = await self._by_id.find_one(client_id)
        return None if document is None else _looks(document)

    def add(self, looks: LooksOfClient, work: Work) -> None:
        """Insert what is said first of a client; if somebody else said something first, the handler runs again."""
        work.insert(self._collection, _document(looks))

    def save(self, looks: LooksOfClient, work: Work) -> None:
        """Replace what was said; if it moved meanwhile, the handler runs again."""
        work.replace(self._collection, _document(looks), version=looks.version)


def _document(looks: LooksOfClient) -> Document:
    return {
        "_id": looks.client_id,
        **{stored: getattr(looks.chosen, name) for name, stored in _FIELDS.items()},
        "createdAt": looks.created_at,
        "updatedAt": looks.updated_at,
        "version": looks.version,
    }


def _looks(document: Document) -> LooksOfClient:
    chosen: dict[str, Any] = {name: document.get(stored) for name, stored in _FIELDS.items()}
    return LooksOfClient(
        client_id=document["_id"],
        chosen=ClientLooks.model_validate(chosen),
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )
