"""Where is the audit kept? In ``audit``, for as long as the settings say."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.auth.audit.models import AuditEntry
from shared.bus.work import Work
from shared.messages.auth.audit import ListAuditEntries
from shared.mongo import Collection, Database, Document


class AuditEntries:
    """The lines of the audit: added, read, and gone when their time is over; never changed."""

    COLLECTION: ClassVar = "audit"

    INDEXES: ClassVar = [
        # In this form the filter follows from every question for a user, so that the index can serve it.
        IndexModel([("userId", ASCENDING), ("_id", ASCENDING)], partialFilterExpression={"userId": {"$gt": ""}}),
        IndexModel([("action", ASCENDING), ("_id", ASCENDING)]),
        # For an erasure: a link is ordered before it is known by whom.
        IndexModel([("sessionId", ASCENDING)], partialFilterExpression={"sessionId": {"$gt": ""}}),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]

    @staticmethod
    def expiry(kept: timedelta) -> IndexModel:
        """The index by time, which also ends entries.

        Args:
            kept: how long they stay; another duration than before takes effect at the next start, for old ones too.
        """
        return IndexModel([("at", ASCENDING)], expireAfterSeconds=int(kept.total_seconds()))

    def add(self, entry: AuditEntry, work: Work) -> None:
        """Store a new line."""
        work.insert(self._documents, _document(entry))

    async def page(self, query: ListAuditEntries) -> list[AuditEntry]:
        """The entries asked for, newest first, and one more if there are more.

        Their order is that of their ids, the one in which they were written: exact to the second, and within it that of
        each instance. What other services tell is written when auth hears of it, after an outage long after ``at``.
        """
        wanted: Document = {}
        if query.user_id is not None:
            wanted["userId"] = query.user_id
        if query.action is not None:
            wanted["action"] = query.action
        if query.outcome is not None:
            wanted["outcome"] = query.outcome
        if query.cursor is not None:
            wanted["_id"] = {"$lt": query.cursor}
        if query.since is not None or query.until is not None:
            bounds = {"$gte": query.since, "$lt": query.until}
            wanted["at"] = {operator: moment for operator, moment in bounds.items() if moment is not None}
        found = self._documents.find(wanted).sort("_id", DESCENDING).limit(query.limit + 1)
        return [_entry(document) async for document in found]


def _entry(document: Document) -> AuditEntry:
    return AuditEntry(
        id=document["_id"],
        at=document["at"],
        action=document["action"],
        outcome=document["outcome"],
        code=document["code"],
        caller=document["caller"],
        caller_user_id=document["callerUserId"],
        user_id=document["userId"],
        client_id=document["clientId"],
        session_id=document["sessionId"],
        identifier_id=document["identifierId"],
        client_ip=document["clientIp"],
        message_id=document["messageId"],
        # Entries of before it was kept have none.
        resource_id=document.get("resourceId"),
    )


def _document(entry: AuditEntry) -> Document:
    return {
        "_id": entry.id,
        "at": entry.at,
        "action": entry.action,
        "outcome": entry.outcome,
        "code": entry.code,
        "caller": entry.caller,
        "callerUserId": entry.caller_user_id,
        "userId": entry.user_id,
        "clientId": entry.client_id,
        "sessionId": entry.session_id,
        "identifierId": entry.identifier_id,
        "clientIp": entry.client_ip,
        "messageId": entry.message_id,
        "resourceId": entry.resource_id,
    }
