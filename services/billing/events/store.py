"""Store of Stripe events, which keeps each one until the object it is about was read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.events.models import EventRow
from shared.batch_loader import BatchLoader
from shared.documents import Rows
from shared.indexes import expiry_index
from shared.mongo import Database, Document
from shared.paging import NewestFirst, OldestFirst

_PENDING: Final = {"handledAt": None}
_MADE: Final = OldestFirst("madeAt")
_NEWEST: Final = NewestFirst("madeAt")
_LEADS: Final = {"$type": "string"}
MAX_OBJECTS: Final = 200
"""Objects whose events are listed together. MongoDB merges a range of the index for each, and would sort in memory with
more of them (``internalQueryMaxScansToExplode``)."""
_OLDEST_FIRST: Final = [("receivedAt", ASCENDING)]


class StripeEvents(Rows[EventRow]):
    """The collection ``stripe_events``."""

    COLLECTION: Final = "stripe_events"
    INDEXES: Final = (
        IndexModel([("account", ASCENDING), ("livemode", ASCENDING), ("stpEventId", ASCENDING)], unique=True),
        IndexModel([("objectId", ASCENDING)], partialFilterExpression=_PENDING),
        IndexModel([("leadsTo", ASCENDING)], partialFilterExpression=_PENDING),
        IndexModel(_OLDEST_FIRST, partialFilterExpression=_PENDING),
        _NEWEST.index("objectId", scattered=True),
        _NEWEST.index("leadsTo", scattered=True, partialFilterExpression={"leadsTo": _LEADS}),
        _MADE.index("type"),
        _MADE.index(),
        IndexModel([("stpEventId", ASCENDING)]),
        expiry_index("expiresAt"),
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._by_object = BatchLoader(self._collection, "objectId", dict(_PENDING))
        self._by_payment_intent = BatchLoader(self._collection, "leadsTo", dict(_PENDING))

    async def find_by_stripe_id(self, event_id: str) -> EventRow | None:
        """The event row with Stripe's event ID, of any account and mode."""
        return await self._one({"stpEventId": {"$eq": event_id}})

    async def pending_of(self, object_id: str) -> list[EventRow]:
        """The pending events that wait for an object to be read, in no order.

        Those are the events about the object, and for a payment intent also the events about other objects that were
        found to belong to it. An event about a charge that belongs to a payment intent waits only for the latter.
        """
        # Events lead to nothing but payment intents.
        loaders = (self._by_object, self._by_payment_intent) if object_id.startswith("pi_") else (self._by_object,)
        found = await asyncio.gather(*(loader.find(object_id) for loader in loaders))
        rows = [self._read(document) for documents in found for document in documents]
        return [row for row in rows if row.payment_intent_id in (None, object_id)]

    async def count_pending(self) -> tuple[int, datetime | None]:
        """The number of pending events, and when the oldest of them was received."""
        steps: list[Document] = [
            {"$match": _PENDING},
            {"$sort": dict(_OLDEST_FIRST)},
            {"$group": {"_id": None, "count": {"$sum": 1}, "since": {"$first": "$receivedAt"}}},
        ]
        # Without the hint the planner does not recognize that the partial index holds exactly these documents.
        found = await (await self._collection.aggregate(steps, hint=dict(_OLDEST_FIRST))).to_list()
        return (found[0]["count"], found[0]["since"]) if found else (0, None)

    async def known(self, row_ids: Iterable[str]) -> set[str]:
        """Those of these IDs that have an event row."""
        found = self._collection.find({"_id": {"$in": list(row_ids)}}, {"_id": 1})
        return {document["_id"] async for document in found}

    async def made(
        self,
        *,
        types: Sequence[str],
        since: datetime | None,
        until: datetime | None,
        after: str | None,
        limit: int,
    ) -> list[EventRow]:
        """The next event rows in the order in which Stripe created them.

        Args:
            types: include only these event types; empty for all.
            since: include only events that Stripe created at or after this time.
            until: include only events that Stripe created at or before this time.
            after: ``cursor_of`` the last row of the previous page.
            limit: number of rows at most.

        Raises:
            InvalidCursor: no page ended with this cursor.
        """
        found = await _MADE.page(
            self._collection,
            {"type": {"$in": list(types)}} if types else {},
            limit=limit - 1,
            cursor=after,
            since=since,
            until=None if until is None else until + timedelta(milliseconds=1),
        )
        return list(map(self._read, found))

    async def about(self, object_ids: Sequence[str], *, limit: int, cursor: str | None) -> list[EventRow]:
        """The event rows about some objects or found to belong to them, newest first by ``made_at``.

        Args:
            object_ids: at most ``MAX_OBJECTS``; values of ``object_id``.
            limit: rows on the page; one more is returned if another page follows.
            cursor: ``cursor_of`` the last row of the previous page.

        Raises:
            InvalidCursor: no page ended with this cursor.
        """
        among = {"$in": list(object_ids)}
        # Not as "$or" in one query: MongoDB may choose to sort its results in memory.
        found = await asyncio.gather(
            _NEWEST.page(self._collection, {"objectId": among}, limit=limit, cursor=cursor),
            _NEWEST.page(self._collection, {"leadsTo": {**among, **_LEADS}}, limit=limit, cursor=cursor),
        )
        rows = {document["_id"]: self._read(document) for documents in found for document in documents}
        return sorted(rows.values(), key=lambda row: (row.made_at, row.id), reverse=True)[: limit + 1]
