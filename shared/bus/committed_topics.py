"""Topics in which a consumer group has committed offsets, remembered in the service's database.

If Kafka has no offset of the group in one of them any more, it has lost the topic: a cluster was replaced. Without this
memory a new topic, or one without records, would look the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shared.database_version import COLLECTION, upsert
from shared.mongo import Collection, Database, dependency_down
from shared.telemetry import log

ROW: Final = "committed topics"


class CommittedTopics:
    """The topics of one service's consumer group, by their full names.

    Attributes:
        names: the topics that are known to have offsets.
    """

    def __init__(self, database: Database) -> None:
        self._collection: Collection = database[COLLECTION]
        self.names: frozenset[str] = frozenset()

    async def load(self) -> None:
        """Read them; raise PyMongoError if MongoDB is unavailable."""
        row = await self._collection.find_one({"_id": ROW})
        self.names = frozenset(row["names"] if row is not None else ())

    async def add(self, names: Iterable[str]) -> None:
        """Add topics in which an offset was committed. If MongoDB is unavailable, a later commit adds them."""
        added = sorted(set(names) - self.names)
        if not added:
            return
        try:
            await upsert(self._collection, {"_id": ROW}, {"$addToSet": {"names": {"$each": added}}})
        except Exception as failure:
            if not dependency_down(failure):
                raise
            log.info("committed topics not stored", error=type(failure).__name__)
            return
        self.names = self.names.union(added)
