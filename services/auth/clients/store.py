"""Store of clients."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel

from services.auth.clients.models import Client
from shared.documents import Rows
from shared.messages.auth.errors import ClientAlreadyExists, ClientNotFound

MAX_LISTED: Final = 1_000


class Clients(Rows[Client], taken=ClientAlreadyExists, missing=ClientNotFound):
    """The collection ``clients``; adding one whose ID is taken is refused with ``ClientAlreadyExists``."""

    COLLECTION: Final = "clients"
    _BY_AGE: Final = (("createdAt", ASCENDING), ("_id", ASCENDING))
    INDEXES: Final = (IndexModel(_BY_AGE),)

    async def ids(self) -> list[str]:
        """The IDs of all clients."""
        return [document["_id"] for document in await self._collection.find({}, {"_id": 1}).to_list()]

    async def all(self) -> list[Client]:
        """Up to 1,000 clients, the oldest first."""
        return await self._all(self._collection.find({}).sort(self._BY_AGE).limit(MAX_LISTED))
