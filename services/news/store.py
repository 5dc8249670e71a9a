"""How are news items and the clients that show them kept in MongoDB?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from pymongo import DESCENDING, IndexModel

from services.news.errors import NewsItemAlreadyExists
from services.news.models import NewsItem
from shared.messages.news import Content
from shared.mongo import Database, Document
from shared.work import Work

NEWEST_FIRST: Final = [("startsAt", DESCENDING), ("_id", DESCENDING)]
INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {"news_items": [IndexModel(NEWEST_FIRST)], "clients": []}
MOST_LISTED: Final = 100
"""An app shows a handful; a bound keeps a slip of an operator from filling every answer."""


class NewsItems:
    """The collection ``news_items``."""

    def __init__(self, database: Database) -> None:
        self._collection = database["news_items"]

    async def live(self, client_id: str, *, at: datetime) -> list[NewsItem]:
        """The items that a registered client shows at a moment, the latest to start first; 100 at most."""
        query = {
            "startsAt": {"$lte": at},
            "$or": [{"endsAt": None}, {"endsAt": {"$gt": at}}],
            # An item without targets has null there, and goes to all.
            "clients": {"$in": [None, client_id]},
        }
        found = self._collection.find(query, sort=NEWEST_FIRST, limit=MOST_LISTED)
        return [_item(document) async for document in found]

    def add(self, item: NewsItem, work: Work) -> None:
        """Insert an item; NewsItemAlreadyExists if its id is taken."""
        work.insert(self._collection, _document(item), taken=NewsItemAlreadyExists)


class Clients:
    """The collection ``clients``: which clients auth has announced.

    A client is never taken back, so who is known once is remembered in memory: a repeated question costs no read.
    """

    def __init__(self, database: Database) -> None:
        self._collection = database["clients"]
        self._known: set[str] = set()

    async def known(self, client_id: str) -> bool:
        """Whether the client is registered."""
        if client_id in self._known:
            return True
        if await self._collection.find_one({"_id": {"$eq": client_id}}, {"_id": 1}) is None:
            return False
        self._known.add(client_id)
        return True

    def add(self, client_id: str, work: Work) -> None:
        """Insert a client; if it is there already, the handler runs again."""
        work.insert(self._collection, {"_id": client_id, "createdAt": work.now, "version": 1})


def _document(item: NewsItem) -> Document:
    return {
        "_id": item.id,
        "primary": item.primary.model_dump(),
        "fallback": None if item.fallback is None else item.fallback.model_dump(),
        "clients": None if item.clients is None else list(item.clients),
        "startsAt": item.starts_at,
        "endsAt": item.ends_at,
        "createdAt": item.created_at,
        "updatedAt": item.updated_at,
        "version": item.version,
    }


def _item(document: Document) -> NewsItem:
    fallback, clients = document["fallback"], document["clients"]
    return NewsItem(
        id=document["_id"],
        primary=Content.model_validate(document["primary"]),
        fallback=None if fallback is None else Content.model_validate(fallback),
        clients=None if clients is None else tuple(clients),
        starts_at=document["startsAt"],
        ends_at=document["endsAt"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )
