"""How are Stripe's events kept, so that none is only seen and never followed?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.models.events import KeptEvent
from shared.batch_loader import BatchLoader
from shared.documents import Rows
from shared.mongo import Database, Document

_WAITING: Final = {"handledAt": None}
_LONGEST_FIRST: Final = [("receivedAt", ASCENDING)]
INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "stripe_events": [
        IndexModel([("account", ASCENDING), ("livemode", ASCENDING), ("stpEventId", ASCENDING)], unique=True),
        IndexModel([("objectId", ASCENDING)], partialFilterExpression=_WAITING),
        IndexModel([("leadsTo", ASCENDING)], partialFilterExpression=_WAITING),
        IndexModel(_LONGEST_FIRST, partialFilterExpression=_WAITING),
        IndexModel([("type", ASCENDING), ("madeAt", ASCENDING)]),
        IndexModel([("madeAt", ASCENDING)]),
        IndexModel([("stpEventId", ASCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ]
}


class StripeEvents(Rows[KeptEvent]):
    """The collection ``stripe_events``."""

    def __init__(self, database: Database) -> None:
        super().__init__(database["stripe_events"], KeptEvent)
        self._by_id = BatchLoader(self._collection)
        self._about = BatchLoader(self._collection, "objectId", dict(_WAITING))
        self._leading_to = BatchLoader(self._collection, "leadsTo", dict(_WAITING))

    async def find(self, event_id: str) -> KeptEvent | None:
        """An event by our id."""
        return self._read_or_none(await self._by_id.find_one(event_id))

    async def waiting_of(self, object_id: str) -> list[KeptEvent]:
        """The events that wait for an object to be read, in no order: those about it, and those that led to it."""
        found = await asyncio.gather(self._about.find(object_id), self._leading_to.find(object_id))
        events = [self._read(document) for documents in found for document in documents]
        return [event for event in events if event.leads_to in (None, object_id)]

    async def waiting(self) -> tuple[int, datetime | None]:
        """How many events wait, and since when the first of them does."""
        steps: list[Document] = [
            {"$match": _WAITING},
            {"$sort": dict(_LONGEST_FIRST)},
            {"$group": {"_id": None, "count": {"$sum": 1}, "since": {"$first": "$receivedAt"}}},
        ]
        # For the planner alone it would not be clear that the index holds exactly these.
        found = await (await self._collection.aggregate(steps, hint=dict(_LONGEST_FIRST))).to_list()
        return (found[0]["count"], found[0]["since"]) if found else (0, None)

    async def find_by_stripe_id(self, stripe_event_id: str) -> KeptEvent | None:
        """An event by Stripe's id, of whichever account and mode."""
        return await self._one({"stpEventId": {"$eq": stripe_event_id}})

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
        return await self._all(self._collection.find(wanted).sort("_id", ASCENDING).limit(limit))
