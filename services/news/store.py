"""MongoDB stores of news items, dismissals and the subscription states of users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.news.models import NewsItem
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.documents import Rows, document_of, entity_of
from shared.indexes import expiry_index
from shared.messages.news import NewsItemAlreadyExists, NewsItemNotFound
from shared.mongo import Database, Document
from shared.paging import NewestFirst, cursor_of
from shared.personal_data.subjects import DataSubject, PersonalDataCollection

MAX_CURRENT_ITEMS: Final = 10_000
"""Items that are live or will be: bounds the memory of every instance."""
BATCH_SIZE: Final = 500
"""Items read per query, so that parsing them does not block other requests for long."""
DISMISSAL_RETENTION: Final = timedelta(days=180)
"""How long a dismissal outlives its item: operators extend items that have ended."""


class NewsItems(Rows[NewsItem], taken=NewsItemAlreadyExists, missing=NewsItemNotFound):
    """The collection ``news_items``. The fields of ``target`` are stored at the top level of the document."""

    COLLECTION: Final = "news_items"
    _ORDER: Final = NewestFirst("createdAt")
    INDEXES: Final = (IndexModel([("endsAt", ASCENDING)]), _ORDER.index(), _ORDER.index("clients"))

    async def list_page(self, client_id: str | None, *, cursor: str | None, limit: int) -> list[NewsItem]:
        """Return a page of items, live or not, newest first; with a client ID only the items that this client shows.

        ``cursor`` is the ID of the last item of the previous page; None for the first page.

        Raises:
            NewsItemNotFound: the cursor's item was deleted.
        """
        last = None if cursor is None else await self.get(cursor)
        found = await self._ORDER.page(
            self._collection,
            {} if client_id is None else {"clients": {"$in": [None, client_id]}},
            limit=limit - 1,
            cursor=None if last is None else cursor_of(last.created_at, last.id),
        )
        return list(map(self._read, found))

    async def load_current(self, loaded: Mapping[str, NewsItem], *, at: datetime) -> dict[str, NewsItem]:
        """Return the items that are live at a time or will be, by ID; the newest ``MAX_CURRENT_ITEMS``.

        Of the items of the previous call, ``loaded``, only the changed ones are read.

        Raises:
            PyMongoError: a read failed.
        """
        query = {"$or": [{"endsAt": None}, {"endsAt": {"$gt": at}}]}
        stamps = self._collection.find(
            query, {"version": True, "updatedAt": True}, sort=[("createdAt", DESCENDING)], limit=MAX_CURRENT_ITEMS
        )
        items: dict[str, NewsItem | None] = {}
        async for stamp in stamps:
            item = loaded.get(stamp["_id"])
            # The time is compared too: an item that was deleted and created again has the same version.
            same = item is not None and (item.version, item.updated_at) == (stamp["version"], stamp["updatedAt"])
            items[stamp["_id"]] = item if same else None
        changed = [item_id for item_id, item in items.items() if item is None]
        for start in range(0, len(changed), BATCH_SIZE):
            async for document in self._collection.find({"_id": {"$in": changed[start : start + BATCH_SIZE]}}):
                items[document["_id"]] = self._read(document)
        # An item that was deleted between the two queries is still None.
        return {item_id: item for item_id, item in items.items() if item is not None}

    def _document(self, entity: NewsItem) -> Document:
        document = document_of(entity)
        return {**document.pop("target"), **document}

    def _read(self, document: Document) -> NewsItem:
        return entity_of(NewsItem, {**document, "target": document})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismissal:
    """Item that a user dismissed on all devices.

    ``id`` joins the IDs of user and item with a slash. ``ends_at`` is the end of the item when it was dismissed.
    """

    id: str
    user_id: str
    news_item_id: str
    ends_at: datetime | None
    created_at: datetime


class Dismissals:
    """The collection ``dismissals``."""

    COLLECTION: Final = "dismissals"
    INDEXES: Final = (
        IndexModel([("userId", ASCENDING)]),
        # A document without an end never expires.
        expiry_index("endsAt", DISMISSAL_RETENTION),
    )

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]
        self._by_user = BatchLoader(self._collection, "userId")

    async def list_item_ids(self, user_id: str) -> frozenset[str]:
        """Return the IDs of the items that a user dismissed."""
        return frozenset(document["newsItemId"] for document in await self._by_user.find(user_id))

    def add(self, user_id: str, item: NewsItem, work: Work) -> None:
        """Insert a dismissal; if two devices dismiss an item at once, the second handler runs again."""
        dismissal = Dismissal(
            id=f"{user_id}/{item.id}",
            user_id=user_id,
            news_item_id=item.id,
            ends_at=item.ends_at,
            created_at=work.now,
        )
        work.insert(self._collection, document_of(dismissal))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """State of a subscription, as published by billing, under the subscription's ID."""

    id: str
    user_id: str
    status: str
    updated_at: datetime
    version: int = 1


class Subscriptions(Rows[Subscription]):
    """The collection ``subscriptions``."""

    COLLECTION: Final = "subscriptions"
    INDEXES: Final = (IndexModel([("userId", ASCENDING)]),)

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._by_user = BatchLoader(self._collection, "userId")

    async def list_states(self, user_id: str) -> frozenset[str]:
        """Return the states of a user's subscriptions; ``none`` for a user who never had one."""
        documents = await self._by_user.find(user_id)
        return frozenset(document["status"] for document in documents) or frozenset({"none"})

    async def store_status(self, subscription_id: str, user_id: str, status: str, work: Work) -> None:
        """Insert the state of a subscription, or replace it if it has changed."""
        stored = await self.find(subscription_id)
        if stored is None:
            self.add(Subscription(id=subscription_id, user_id=user_id, status=status, updated_at=work.now), work)
        elif (stored.user_id, stored.status) != (user_id, status):
            self.save(replace(stored, user_id=user_id, status=status, updated_at=work.now), work)


def personal_data(database: Database) -> tuple[PersonalDataCollection, ...]:
    """Return the collections with personal data."""
    return tuple(
        PersonalDataCollection(database[name], _by_user) for name in (Dismissals.COLLECTION, Subscriptions.COLLECTION)
    )


def _by_user(subject: DataSubject) -> Document:
    return {"userId": {"$eq": subject.user_id}}
