"""Which dead letters are removed, although Kafka may still hold them? In ``removed_letters``, a document for each.

Kafka is told of each removal, and drops the letter when it cleans next. Until then this keeps it from being shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from shared.bus.work import Work
from shared.mongo import Collection, Database

KEPT = timedelta(days=60)
"""Twice as long as Kafka keeps a dead letter."""


class RemovedLetters:
    """The marks of removed letters; gone when no letter can be there any more."""

    COLLECTION: ClassVar = "removed_letters"

    INDEXES: ClassVar = [IndexModel([("at", ASCENDING)], expireAfterSeconds=int(KEPT.total_seconds()))]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]

    async def among(self, marks: Iterable[str]) -> frozenset[str]:
        """Which of these are of removed letters."""
        found = await self._documents.find({"_id": {"$in": list(marks)}}).to_list()
        return frozenset(document["_id"] for document in found)

    def add(self, mark: str, work: Work, *, at: datetime) -> None:
        """Store that the letters with this mark are removed; there must be none with it yet."""
        work.insert(self._documents, {"_id": mark, "at": at})
