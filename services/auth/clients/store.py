"""Where are the apps kept? In ``clients``."""

from __future__ import annotations

from typing import ClassVar, Final

from pymongo import ASCENDING

from services.auth.clients.models import Client
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.auth.errors import ClientAlreadyExists, ClientNotFound
from shared.mongo import Collection, Database, Document

MOST_LISTED: Final = 1_000


class Clients:
    """The apps that may log people in."""

    COLLECTION: ClassVar = "clients"

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)

    async def get(self, id: str) -> Client:  # noqa: A002 -- the field's name
        """The app with this id.

        Raises:
            ClientNotFound: there is none.
        """
        client = await self.find(id)
        if client is None:
            raise ClientNotFound
        return client

    async def find(self, id: str) -> Client | None:  # noqa: A002 -- the field's name
        """The app with this id, if one is registered."""
        document = await self._by_id.find_one(id)
        return None if document is None else _client(document)

    async def ids(self) -> list[str]:
        """The ids of all apps."""
        return [document["_id"] for document in await self._documents.find({}, {"_id": 1}).to_list()]

    async def all(self) -> list[Client]:
        """Every app, the oldest first; 1,000 at most."""
        found = self._documents.find({}).sort([("createdAt", ASCENDING), ("_id", ASCENDING)]).limit(MOST_LISTED)
        return [_client(document) async for document in found]

    def add(self, client: Client, work: Work) -> None:
        """Store a new app; refused with ClientAlreadyExists when its id is taken."""
        work.insert(self._documents, _document(client), taken=ClientAlreadyExists)

    def save(self, client: Client, work: Work) -> None:
        """Store what changed; if it moved meanwhile, the handler runs again."""
        work.replace(self._documents, _document(client), version=client.version)


def _client(document: Document) -> Client:
    return Client(
        id=document["_id"],
        name=document["name"],
        redirect_uris=tuple(document["redirectUris"]),
        disabled_at=document["disabledAt"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )


def _document(client: Client) -> Document:
    return {
        "_id": client.id,
        "name": client.name,
        "redirectUris": list(client.redirect_uris),
        "disabledAt": client.disabled_at,
        "createdAt": client.created_at,
        "updatedAt": client.updated_at,
        "version": client.version,
    }
