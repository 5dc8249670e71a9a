"""Stores of the rate limits: ``limits`` and ``familiars`` for one person, ``tallies`` for shared counters.

Document IDs and device IDs are keyed hashes, so no document reveals its subject.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pymongo import ASCENDING, IndexModel, UpdateOne

from services.auth.rate_limits.models import KnownDevices, Limit, UseLog
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.documents import Rows
from shared.indexes import expiry_index
from shared.mongo import Collection, Database

KNOWN_DEVICE_RETENTION: Final = timedelta(days=365)
"""Counted from the last time that a new device was added."""
_EXPIRY: Final = expiry_index("expiresAt")


class UseLogs(Rows[UseLog]):
    """The collection ``limits``: one document per person and limit."""

    COLLECTION: Final = "limits"
    INDEXES: Final = (_EXPIRY,)

    async def get(self, log_id: str) -> UseLog:
        """The log with this ID; an empty one if none is stored."""
        return await self.find(log_id) or UseLog(log_id)

    def put(self, log: UseLog, limit: Limit, work: Work) -> None:
        """Store a log; if another use was stored in between, the handler runs again and counts that one too."""
        _put(self._collection, self._document(log), work, expires_at=log.times[-1] + limit.longest_window)

    def hold(self, log: UseLog, limit: Limit, work: Work) -> None:
        """Fail the commit if another use is stored in between, without counting one; the handler then runs again."""
        if log.version:
            self.require_unchanged(log, work)
        else:
            _put(self._collection, self._document(log), work, expires_at=work.now + limit.longest_window)


class KnownDevicesStore(Rows[KnownDevices]):
    """The collection ``familiars``: one document per person."""

    COLLECTION: Final = "familiars"
    INDEXES: Final = (_EXPIRY,)

    async def get(self, subject_id: str) -> KnownDevices:
        """The known devices of a subject; an empty entity if none are stored."""
        return await self.find(subject_id) or KnownDevices(subject_id)

    def put(self, known: KnownDevices, work: Work) -> None:
        """Store known devices; if they have changed since they were read, the handler runs again."""
        _put(self._collection, self._document(known), work, expires_at=work.now + KNOWN_DEVICE_RETENTION)


def _put(collection: Collection, document: dict[str, Any], work: Work, *, expires_at: datetime) -> None:
    """Insert a document of version 0, replace one of a later version."""
    document["expiresAt"] = expires_at
    if document["version"] == 0:
        work.insert(collection, {**document, "version": 1})
    else:
        work.replace(collection, document, version=document["version"])


class CounterSlots:
    """The collection ``tallies``: one document per shared counter and slot, with the count of each instance.

    An instance writes its own total, not an increment, so a repeated write changes nothing.
    """

    COLLECTION: Final = "tallies"
    INDEXES: Final = (_EXPIRY, IndexModel([("series", ASCENDING)]))

    def __init__(self, database: Database) -> None:
        self._collection: Collection = database[self.COLLECTION]
        self._by_counter = BatchLoader(self._collection, "series")

    async def read(self, counter_id: str) -> dict[int, dict[str, int]]:
        """The counts of each instance, by slot.

        Raises:
            PyMongoError: the read failed.
        """
        return {document["grain"]: document["counts"] for document in await self._by_counter.find(counter_id)}

    async def write(self, instance: str, counts: Iterable[tuple[str, int, int, float]]) -> None:
        """Store the counts of one instance: counter ID, slot, count, and when the slot expires, in Unix seconds.

        Raises:
            PyMongoError: some or all of the counts may not be stored.
        """
        updates = [
            UpdateOne(
                {"_id": f"{counter_id}:{slot}"},
                {
                    "$max": {f"counts.{instance}": count},
                    "$setOnInsert": {
                        "series": counter_id,
                        "grain": slot,
                        "expiresAt": datetime.fromtimestamp(expires_at, UTC),
                    },
                },
                upsert=True,
            )
            for counter_id, slot, count, expires_at in counts
        ]
        if updates:
            await self._collection.bulk_write(updates, ordered=False)
