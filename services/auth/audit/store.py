"""Store of audit entries."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from shared.bus.work import Work
from shared.documents import document_of, entity_of
from shared.messages.auth.audit import AuditEntryView, ListAuditEntries
from shared.mongo import Collection, Database, Document


class AuditEntries:
    """The collection ``audit``: entries are added and expire, but never change."""

    COLLECTION: Final = "audit"
    INDEXES: Final = (
        # MongoDB uses a partial index only for queries that imply its filter; a query for any user ID implies this one.
        IndexModel([("userId", ASCENDING), ("_id", ASCENDING)], partialFilterExpression={"userId": {"$gt": ""}}),
        IndexModel([("action", ASCENDING), ("_id", ASCENDING)]),
        # For an erasure: when a link is requested, the user is not known yet.
        IndexModel([("sessionId", ASCENDING)], partialFilterExpression={"sessionId": {"$gt": ""}}),
    )

    def __init__(self, database: Database) -> None:
        self._collection: Collection = database[self.COLLECTION]

    @staticmethod
    def expiry(retention: timedelta) -> IndexModel:
        """The TTL index; a changed retention takes effect at the next start, for old entries too."""
        return IndexModel([("at", ASCENDING)], expireAfterSeconds=int(retention.total_seconds()))

    def add(self, entry: AuditEntryView, work: Work) -> None:
        """Insert an entry."""
        work.insert(self._collection, document_of(entry))

    async def page(self, query: ListAuditEntries) -> list[AuditEntryView]:
        """The entries that match a query, newest first, and one more if there are more.

        Entries are sorted by ID, which is the order in which they were written: exact to the second, and within a
        second exact for each instance. Entries from other services are written when auth receives them, which after an
        outage can be long after ``at``.
        """
        fields = {"userId": query.user_id, "action": query.action, "outcome": query.outcome}
        conditions: Document = {name: value for name, value in fields.items() if value is not None}
        if query.cursor is not None:
            conditions["_id"] = {"$lt": query.cursor}
        if query.since is not None or query.until is not None:
            bounds = {"$gte": query.since, "$lt": query.until}
            conditions["at"] = {operator: moment for operator, moment in bounds.items() if moment is not None}
        found = self._collection.find(conditions).sort("_id", DESCENDING).limit(query.limit + 1)
        return [entity_of(AuditEntryView, document) async for document in found]
