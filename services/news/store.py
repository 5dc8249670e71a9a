"""How are news items, what users put away and how they subscribe kept in MongoDB?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import TypeAdapter
from pymongo import ASCENDING, DESCENDING, IndexModel

from services.news.models.items import NewsItem, Target
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.news import Content, NewsItemAlreadyExists, NewsItemNotFound
from shared.mongo import Collection, Database, Document

MOST_CURRENT: Final = 10_000
"""Items that are live, or will be: a bound for what every instance keeps in memory."""
AT_ONCE: Final = 500
"""Items are parsed so many at a time; others are answered in between."""
PUT_AWAY_FOR: Final = timedelta(days=180)
"""How long it is remembered after an item's end that somebody put it away: operators extend what is over."""
_CONTENT: Final[TypeAdapter[Content]] = TypeAdapter(Content)


class NewsItems:
    """The collection ``news_items``."""

    COLLECTION: Final = "news_items"
    INDEXES: Final = (IndexModel([("endsAt", ASCENDING)]), IndexModel([("createdAt", DESCENDING)]))

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]

    async def current(self, known: Mapping[str, NewsItem], *, at: datetime) -> dict[str, NewsItem]:
        """The items that are live at a moment, or will be, by their ids; 10,000 at most, the newest.

        Args:
            known: what was read before; of those only what has changed is read again.
            at: the moment.

        Raises:
            PyMongoError: MongoDB could not be asked.
        """
        query = {"$or": [{"endsAt": None}, {"endsAt": {"$gt": at}}]}
        stamps = self._documents.find(
            query, {"version": True, "updatedAt": True}, sort=[("createdAt", DESCENDING)], limit=MOST_CURRENT
        )
        items: dict[str, NewsItem | None] = {}
        async for stamp in stamps:
            held = known.get(stamp["_id"])
            # The time too: one that was removed and made again under its id has that version again.
            same = held is not None and (held.version, held.updated_at) == (stamp["version"], stamp["updatedAt"])
            items[stamp["_id"]] = held if same else None
        changed = [id_ for id_, held in items.items() if held is None]
        for start in range(0, len(changed), AT_ONCE):
            async for document in self._documents.find({"_id": {"$in": changed[start : start + AT_ONCE]}}):
                items[document["_id"]] = _item(document)
        # What was removed between the two questions is gone.
        return {id_: item for id_, item in items.items() if item is not None}

    async def page(self, client_id: str | None, *, cursor: str | None, limit: int) -> list[NewsItem]:
        """Items whenever they are live, the newest first.

        Args:
            client_id: only what this client shows; None for all.
            cursor: after the item with this id; None for the newest.
            limit: so many at most.

        Raises:
            NewsItemNotFound: there is no item with the cursor's id (any more).
        """
        query: Document = {} if client_id is None else {"clients": {"$in": [None, client_id]}}
        if cursor is not None:
            last = await self.get(cursor)
            query["$or"] = [
                {"createdAt": {"$lt": last.created_at}},
                {"createdAt": last.created_at, "_id": {"$lt": last.id}},
            ]
        found = self._documents.find(query, sort=[("createdAt", DESCENDING), ("_id", DESCENDING)], limit=limit)
        return [_item(document) async for document in found]

    async def get(self, id: str) -> NewsItem:  # noqa: A002 -- the field's name
        """The item with this id.

        Raises:
            NewsItemNotFound: there is none.
        """
        document = await self._documents.find_one({"_id": {"$eq": id}})
        if document is None:
            raise NewsItemNotFound
        return _item(document)

    def add(self, item: NewsItem, work: Work) -> None:
        """Insert an item; NewsItemAlreadyExists if its id is taken."""
        work.insert(self._documents, _document(item), taken=NewsItemAlreadyExists)

    def save(self, item: NewsItem, work: Work) -> None:
        """Store what changed."""
        work.replace(self._documents, _document(item), version=item.version)

    def remove(self, item: NewsItem, work: Work) -> None:
        """Delete an item."""
        work.delete(self._documents, item.id, version=item.version)


class Dismissals:
    """The collection ``dismissals``: what a user wants to see no more, on any device."""

    COLLECTION: Final = "dismissals"
    INDEXES: Final = (
        IndexModel([("userId", ASCENDING)]),
        # Null never expires.
        IndexModel([("endsAt", ASCENDING)], expireAfterSeconds=int(PUT_AWAY_FOR.total_seconds())),
    )

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._of_user = BatchLoader(self._documents, "userId")

    async def of_user(self, user_id: str) -> frozenset[str]:
        """The ids of the items that a user has put away."""
        return frozenset(document["newsItemId"] for document in await self._of_user.find(user_id))

    def add(self, user_id: str, item: NewsItem, work: Work) -> None:
        """Insert one; when two devices put an item away at once, the handler of the second runs again."""
        document = {
            "_id": f"{user_id}/{item.id}",
            "userId": user_id,
            "newsItemId": item.id,
            "endsAt": item.ends_at,
            "createdAt": work.now,
        }
        work.insert(self._documents, document)


class Subscriptions:
    """The collection ``subscriptions``: what billing has said of them."""

    COLLECTION: Final = "subscriptions"
    INDEXES: Final = (IndexModel([("userId", ASCENDING)]),)

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)
        self._of_user = BatchLoader(self._documents, "userId")

    async def states(self, user_id: str) -> frozenset[str]:
        """The states of a user's subscriptions; ``none`` where there never was one."""
        found = await self._of_user.find(user_id)
        return frozenset(document["status"] for document in found) or frozenset({"none"})

    async def record(self, subscription_id: str, user_id: str, status: str, work: Work) -> None:
        """Store how a subscription is now."""
        held = await self._by_id.find_one(subscription_id)
        document = {
            "_id": subscription_id,
            "userId": user_id,
            "status": status,
            "updatedAt": work.now,
            "version": 1 if held is None else held["version"],
        }
        if held is None:
            work.insert(self._documents, document)
        elif (held["userId"], held["status"]) != (user_id, status):
            work.replace(self._documents, document, version=held["version"])


INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    NewsItems.COLLECTION: NewsItems.INDEXES,
    Dismissals.COLLECTION: Dismissals.INDEXES,
    Subscriptions.COLLECTION: Subscriptions.INDEXES,
}


def _document(item: NewsItem) -> Document:
    target = item.target
    return {
        "_id": item.id,
        "primary": item.primary.model_dump(),
        "fallback": None if item.fallback is None else item.fallback.model_dump(),
        "clients": _list(target.clients),
        "locales": _list(target.locales),
        "minAppVersion": target.min_app_version,
        "maxAppVersion": target.max_app_version,
        "subscriptions": _list(target.subscriptions),
        "priority": item.priority,
        "startsAt": item.starts_at,
        "endsAt": item.ends_at,
        "createdAt": item.created_at,
        "updatedAt": item.updated_at,
        "version": item.version,
    }


def _item(document: Document) -> NewsItem:
    fallback = document["fallback"]
    # Items from before there were other targets than clients lack those.
    target = Target(
        clients=_tuple(document["clients"]),
        locales=_tuple(document.get("locales")),
        min_app_version=document.get("minAppVersion"),
        max_app_version=document.get("maxAppVersion"),
        subscriptions=_tuple(document.get("subscriptions")),
    )
    return NewsItem(
        id=document["_id"],
        primary=_CONTENT.validate_python(document["primary"]),
        fallback=None if fallback is None else _CONTENT.validate_python(fallback),
        target=target,
        priority=document.get("priority", 0),
        starts_at=document["startsAt"],
        ends_at=document["endsAt"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )


def _list(values: Sequence[str] | None) -> list[str] | None:
    return None if values is None else list(values)


def _tuple(values: Sequence[Any] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
