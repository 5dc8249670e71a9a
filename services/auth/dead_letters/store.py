"""Stores of replayed and removed dead letters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shared.bus.work import Work
from shared.documents import Rows
from shared.indexes import expiry_index
from shared.mongo import Collection, Database

RETENTION: Final = timedelta(days=60)
"""Twice as long as Kafka keeps a dead letter."""
_EXPIRY: Final = expiry_index("at", RETENTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The last replay of a dead letter, and the number of replays; its ID is ``DeadLetter.dedup_key``."""

    id: str
    letter_id: str
    at: datetime
    count: int = 1
    version: int = 1


class Replays(Rows[Replay]):
    """The collection ``replays``."""

    COLLECTION: Final = "replays"
    INDEXES: Final = (_EXPIRY,)

    async def by_id(self, dedup_keys: Iterable[str]) -> dict[str, Replay]:
        """The replays of these dead letters, by deduplication key."""
        replays = await self._all(self._collection.find({"_id": {"$in": list(dedup_keys)}}))
        return {replay.id: replay for replay in replays}


class RemovedLetters:
    """The collection ``removed_letters``: dead letters that have been removed for an erasure.

    Kafka deletes a removed dead letter at its next compaction. Until then this collection hides it.
    """

    COLLECTION: Final = "removed_letters"
    INDEXES: Final = (_EXPIRY,)

    def __init__(self, database: Database) -> None:
        self._collection: Collection = database[self.COLLECTION]

    async def among(self, dedup_keys: Iterable[str]) -> frozenset[str]:
        """The subset of these deduplication keys that belongs to removed dead letters."""
        found = await self._collection.find({"_id": {"$in": list(dedup_keys)}}).to_list()
        return frozenset(document["_id"] for document in found)

    def add(self, dedup_key: str, work: Work, *, at: datetime) -> None:
        """Insert the deduplication key of a removed dead letter; it must not be stored yet."""
        work.insert(self._collection, {"_id": dedup_key, "at": at})
