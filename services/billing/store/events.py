"""How are Stripe's events kept, so that none is only seen and never followed?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.models.events import KeptEvent
from services.billing.store.documents import document_of, entity_of
from shared.lookup import Lookup
from shared.mongo import Database, Document
from shared.work import Work

_WAITING: Final = {"handledAt": None}
INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "stripe_events": [
        IndexModel([("account", ASCENDING), ("livemode", ASCENDING), ("stpEventId", ASCENDING)], unique=True),
        IndexModel([("objectId", ASCENDING)], partialFilterExpression=_WAITING),
        IndexModel([("type", ASCENDING), ("madeAt", ASCENDING)]),
        IndexModel([("madeAt", ASCENDING)]),
        IndexModel([("stpEventId", ASCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ]
}


class StripeEvents:
    """The collection ``stripe_events``."""

    def __init__(self, database: Database) -> None:
        self._collection = database["stripe_events"]
        self._by_id = Lookup(self._collection)
        self._waiting = Lookup(self._collection, "objectId", dict(_WAITING))

    async def find(self, event_id: str) -> KeptEvent | None:
        """An event by our id."""
        document = await self._by_id.find_one(event_id)
        return None if document is None else entity_of(KeptEvent, document)

    async def waiting_of(self, object_id: str) -> list[KeptEvent]:
        """The events about an object that nothing has come of yet, in no order."""
        return [entity_of(KeptEvent, document) for document in await self._waiting.find(object_id)]

    async def find_by_stripe_id(self, stripe_event_id: str) -> KeptEvent | None:
        """An event by Stripe's id, of whichever account and mode."""
        document = await self._collection.find_one({"stpEventId": {"$eq": stripe_event_id}})
        return None if document is None else entity_of(KeptEvent, document)

    async def known(self, event_ids: Iterable[str]) -> set[str]:
        """Those of these events, by our ids, that are kept."""
        found = self._collection.find({"_id": {"$in": list(event_ids)}}, {"_id": 1})
        return {document["_id"] async for document in found}

    async def made(
        self,
        *,
        types: Sequence[str],
        since: datetime | None,
        until: datetime | None,
        after: str | None,
        limit: int,
    ) -> list[KeptEvent]:
        """The next kept events of these types (empty: all) and of a stretch of time, in the order of our ids."""
        wanted: Document = {} if after is None else {"_id": {"$gt": after}}
        if types:
            wanted["type"] = {"$in": list(types)}
        bounds = {name: moment for name, moment in (("$gte", since), ("$lte", until)) if moment is not None}
        if bounds:
            wanted["madeAt"] = bounds
        found = self._collection.find(wanted).sort("_id", ASCENDING).limit(limit)
        return [entity_of(KeptEvent, document) async for document in found]

    def add(self, event: KeptEvent, work: Work) -> None:
        """Insert; if the event has been kept meanwhile, the handler runs again."""
        work.insert(self._collection, document_of(event))

    def save(self, event: KeptEvent, work: Work) -> None:
        """Replace, if nobody has changed it meanwhile; otherwise the handler runs again."""
        work.replace(self._collection, document_of(event), version=event.version)
