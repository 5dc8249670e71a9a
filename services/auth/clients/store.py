"""Store of clients."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING

from services.auth.clients.models import Client
from shared.batch_loader import BatchLoader
from shared.documents import Rows
from shared.messages.auth.errors import ClientAlreadyExists, ClientNotFound
from shared.mongo import Database

MAX_LISTED: Final = 1_000


class Clients(Rows[Client]):
    """The collection ``clients``; adding one whose ID is taken is refused with ``ClientAlreadyExists``."""

    COLLECTION: Final = "clients"
    INDEXES: Final = ()

    def __init__(self, database: Database) -> None:
        super().__init__(database[self.COLLECTION], Client, taken=ClientAlreadyExists)
        self._by_id = BatchLoader(self._collection)

    async def get(self, client_id: str) -> Client:
        """The client with this ID.

        Raises:
            ClientNotFound: there is none.
        """
        client = await self.find(client_id)
        if client is None:
            raise ClientNotFound
        return client

    async def find(self, client_id: str) -> Client | None:
        """The client with this ID, if there is one."""
        return self._read_or_none(await self._by_id.find_one(client_id))

    async def ids(self) -> list[str]:
        """The IDs of all clients."""
        return [document["_id"] for document in await self._collection.find({}, {"_id": 1}).to_list()]

    async def all(self) -> list[Client]:
        """Up to 1,000 clients, the oldest first."""
        by_age = [("createdAt", ASCENDING), ("_id", ASCENDING)]
        return await self._all(self._collection.find({}).sort(by_age).limit(MAX_LISTED))
