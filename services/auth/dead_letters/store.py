"""Which dead letters were put back already? In ``replays``, a document for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from shared.bus.work import Work
from shared.mongo import Collection, Database, Document

KEPT = timedelta(days=60)
"""Twice as long as Kafka keeps a dead letter: a mark outlives its letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """That a dead letter was put back.

    Attributes:
        mark: which one: ``DeadLetter.mark``.
        letter_id: where it lay.
        at: when it was put back last.
        count: how often.
        version: guards the next write.
    """

    mark: str
    letter_id: str
    at: datetime
    count: int = 1
    version: int = 1


class Replays:
    """The marks of replayed letters; gone when no letter can be there any more."""

    COLLECTION: ClassVar = "replays"

    INDEXES: ClassVar = [IndexModel([("at", ASCENDING)], expireAfterSeconds=int(KEPT.total_seconds()))]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]

    async def of(self, marks: Iterable[str]) -> dict[str, Replay]:
        """The marks that there are, among these."""
        found = await self._documents.find({"_id": {"$in": list(marks)}}).to_list()
        return {document["_id"]: _replay(document) for document in found}

    def add(self, replay: Replay, work: Work) -> None:
        """Store that a letter was put back for the first time."""
        work.insert(self._documents, _document(replay))

    def save(self, replay: Replay, work: Work) -> None:
        """Store that a letter was put back once more."""
        work.replace(self._documents, _document(replay), version=replay.version)


def _replay(document: Document) -> Replay:
    return Replay(
        mark=document["_id"],
        letter_id=document["letterId"],
        at=document["at"],
        count=document["count"],
        version=document["version"],
    )


def _document(replay: Replay) -> Document:
    return {
        "_id": replay.mark,
        "letterId": replay.letter_id,
        "at": replay.at,
        "count": replay.count,
        "version": replay.version,
    }


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
