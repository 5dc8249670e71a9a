"""Where are uses of what is limited kept? A person's in ``limits``, those that many share in ``tallies``.

No document says whose it is: ids and traits are keyed hashes.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final

from pymongo import ASCENDING, IndexModel, UpdateOne

from services.auth.rate_limits.models import KnownDevices, Limit, UsageLog
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.mongo import Collection, Database

FAMILIAR_FOR: Final = timedelta(days=365)
"""How long a device is known after the last new one was."""
_EXPIRY: Final = IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0)


class UsageLogs:
    """When each person did what is limited for them."""

    COLLECTION: ClassVar = "limits"
    INDEXES: ClassVar = [_EXPIRY]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)

    async def get(self, id: str) -> UsageLog:  # noqa: A002 -- the field's name
        """The uses so far; none for somebody new."""
        document = await self._by_id.find_one(id)
        return UsageLog(id) if document is None else UsageLog(id, tuple(document["times"]), document["version"])

    def save(self, uses: UsageLog, limit: Limit, work: Work) -> None:
        """Store one more use; when another was stored meanwhile, the handler runs again and counts it."""
        document = {
            "_id": uses.id,
            "times": list(uses.times),
            "expiresAt": uses.times[-1] + limit.longest,
            "version": uses.version,
        }
        if uses.version == 0:
            work.insert(self._documents, {**document, "version": 1})
        else:
            work.replace(self._documents, document, version=uses.version)

    def forget(self, uses: UsageLog, work: Work) -> None:
        """Keep nothing of one's uses."""
        work.delete(self._documents, uses.id, version=uses.version)


class KnownDevicesStore:
    """By what each person is recognised."""

    COLLECTION: ClassVar = "familiars"
    INDEXES: ClassVar = [_EXPIRY]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)

    async def get(self, id: str) -> KnownDevices:  # noqa: A002 -- the field's name
        """What is known of somebody; nothing of somebody new."""
        document = await self._by_id.find_one(id)
        return (
            KnownDevices(id) if document is None else KnownDevices(id, tuple(document["traits"]), document["version"])
        )

    def save(self, familiar: KnownDevices, work: Work) -> None:
        """Store what changed."""
        document = {
            "_id": familiar.id,
            "traits": list(familiar.traits),
            "expiresAt": work.now + FAMILIAR_FOR,
            "version": familiar.version,
        }
        if familiar.version == 0:
            work.insert(self._documents, {**document, "version": 1})
        else:
            work.replace(self._documents, document, version=familiar.version)

    def forget(self, familiar: KnownDevices, work: Work) -> None:
        """Keep nothing of what somebody is recognised by."""
        work.delete(self._documents, familiar.id, version=familiar.version)


class CounterSlots:
    """How often many people together did something: a document for each part of time, with each instance's count.

    An instance writes its own count, never a difference, so that to write it twice is to write it once.
    """

    COLLECTION: ClassVar = "tallies"
    INDEXES: ClassVar = [_EXPIRY, IndexModel([("series", ASCENDING)])]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._of_series = BatchLoader(self._documents, "series")

    async def read(self, series: str) -> dict[int, dict[str, int]]:
        """The counts of each instance, in each part of time.

        Raises:
            PyMongoError: MongoDB could not be asked.
        """
        return {document["grain"]: document["counts"] for document in await self._of_series.find(series)}

    async def write(self, instance: str, counts: Iterable[tuple[str, int, int, float]]) -> None:
        """Store what an instance has counted: series, part of time, count, and when it counts no longer (Unix seconds).

        Raises:
            PyMongoError: some of it, or all, may not be stored.
        """
        updates = [
            UpdateOne(
                {"_id": f"{series}:{grain}"},
                {
                    "$max": {f"counts.{instance}": count},
                    "$setOnInsert": {
                        "series": series,
                        "grain": grain,
                        "expiresAt": datetime.fromtimestamp(ends, UTC),
                    },
                },
                upsert=True,
            )
            for series, grain, count, ends in counts
        ]
        if updates:
            await self._documents.bulk_write(updates, ordered=False)
