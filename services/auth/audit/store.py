"""Store of audit entries."""

from __future__ import annotations

from datetime import timedelta
from typing import Final, get_args

from pymongo import ASCENDING, IndexModel

from shared.bus.work import Work
from shared.documents import document_of, entity_of
from shared.indexes import expiry_index
from shared.messages.auth.audit import Action, AuditEntryView, AuditOutcome, ListAuditEntries
from shared.mongo import Collection, Database, Document
from shared.paging import NewestFirst, with_all_values

_VALUES: Final = {"action": get_args(Action), "outcome": get_args(AuditOutcome)}


class AuditEntries:
    """The collection ``audit``: entries are added and expire, but never change."""

    COLLECTION: Final = "audit"
    _ORDER: Final = NewestFirst("at")
    # MongoDB uses a partial index only for queries that imply its filter; a query for any user ID implies this one.
    _BY_USER: Final = _ORDER.index("userId", scattered=True, partialFilterExpression={"userId": {"$gt": ""}})
    _BY_VALUES: Final = _ORDER.index(*_VALUES)
    INDEXES: Final = (
        _ORDER.index(),
        _BY_USER,
        _BY_VALUES,
        # For an erasure: when a link is requested, the user is not known yet.
        IndexModel([("sessionId", ASCENDING)], partialFilterExpression={"sessionId": {"$gt": ""}}),
    )

    FORMER_INDEXES: Final = ("action_1_at_-1__id_-1", "outcome_1_at_-1__id_-1")

    def __init__(self, database: Database) -> None:
        self._collection: Collection = database[self.COLLECTION]

    @staticmethod
    def expiry(retention: timedelta) -> IndexModel:
        """The TTL index; a changed retention takes effect at the next start, for old entries too."""
        return expiry_index("at", retention)

    def add(self, entry: AuditEntryView, work: Work) -> None:
        """Insert an entry."""
        work.insert(self._collection, document_of(entry))

    async def page(self, query: ListAuditEntries) -> list[AuditEntryView]:
        """The entries that match a query, newest first, and one more if there are more.

        Entries from other services are written when auth receives them, which after an outage can be long after ``at``.

        Raises:
            InvalidCursor: no page ended with the query's cursor.
        """
        fields = {"userId": query.user_id, "action": query.action, "outcome": query.outcome}
        conditions: Document = {name: {"$eq": value} for name, value in fields.items() if value is not None}
        index = None
        if query.user_id is not None:
            # A user has so few entries that they are filtered as they are read.
            index = self._BY_USER
        elif conditions:
            index, conditions = self._BY_VALUES, with_all_values(conditions, _VALUES)
        found = await self._ORDER.page(
            self._collection,
            conditions,
            limit=query.limit,
            cursor=query.cursor,
            since=query.since,
            until=query.until,
            index=index,
        )
        return [entity_of(AuditEntryView, document) for document in found]
