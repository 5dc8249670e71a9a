"""Store of clients."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.auth.clients.models import Client
from shared.bus.work import Work
from shared.documents import Rows
from shared.messages.auth.errors import ClientAlreadyExists, ClientNotFound
from shared.mongo import Database

MAX_LISTED: Final = 1_000
RECENT_SECONDS: Final = 0.5
"""How long a login may use a client that another instance has changed since."""
CHANGE_SECONDS: Final = 1.0
"""How long after a handler has changed a client this instance reads it anew: longer than the commit usually takes."""


class Clients(Rows[Client], taken=ClientAlreadyExists, missing=ClientNotFound):
    """The collection ``clients``; adding one whose ID is taken is refused with ``ClientAlreadyExists``."""

    COLLECTION: Final = "clients"
    _BY_AGE: Final = (("createdAt", ASCENDING), ("_id", ASCENDING))
    INDEXES: Final = (IndexModel(_BY_AGE),)

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(database)
        self._clock = clock
        self._recent: dict[str, tuple[float, Client]] = {}
        self._changing_until: dict[str, float] = {}

    async def get_recent(self, client_id: str) -> Client:
        """The client with this ID, as it was at most ``RECENT_SECONDS`` ago; raise ClientNotFound if there is none.

        For logins, which read a client thousands of times between two changes. Registered clients alone are kept in
        memory, and they are few.
        """
        now = self._clock()
        read_at, recent = self._recent.get(client_id, (now, None))
        if recent is not None and now - read_at < RECENT_SECONDS:
            return recent
        client = await self.get(client_id)
        if now >= self._changing_until.get(client_id, now):
            self._recent[client_id] = now, client
        return client

    def save(self, entity: Client, work: Work) -> None:
        """Replace the client; logins of this instance use the change as soon as it is committed."""
        super().save(entity, work)
        self._recent.pop(entity.id, None)
        self._changing_until[entity.id] = self._clock() + CHANGE_SECONDS

    async def ids(self) -> list[str]:
        """The IDs of all clients."""
        return [document["_id"] for document in await self._collection.find({}, {"_id": 1}).to_list()]

    async def all(self) -> list[Client]:
        """Up to 1,000 clients, the oldest first."""
        return await self._all(self._collection.find({}).sort(self._BY_AGE).limit(MAX_LISTED))
