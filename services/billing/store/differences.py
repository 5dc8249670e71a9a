"""How is kept what runs have found, and what of it still stands?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.models.drift import Difference, Standing
from services.billing.store.documents import document_of, entity_of
from shared.mongo import Database
from shared.work import Work

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "stripe_differences": [
        IndexModel([("runId", ASCENDING), ("_id", ASCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ],
    "stripe_drift": [],
}
OPEN: Final = ("suspected", "ordered")
"""The states of a difference that is to be looked at again."""


class Differences:
    """The collection ``stripe_differences``: for each run one document for each object that it stumbled over."""

    def __init__(self, database: Database) -> None:
        self._collection = database["stripe_differences"]

    async def page(self, run_id: str, *, after: str | None, limit: int) -> list[Difference]:
        """What a run has found, in the order of ids, after one of them."""
        return await self._found({"runId": {"$eq": run_id}}, after, limit)

    async def open(self, run_id: str, *, after: str | None, limit: int) -> list[Difference]:
        """What is to be looked at again, in the order of ids, after one of them."""
        return await self._found({"runId": {"$eq": run_id}, "state": {"$in": list(OPEN)}}, after, limit)

    async def known(self, ids: Iterable[str]) -> set[str]:
        """Those of these ids that are there."""
        found = self._collection.find({"_id": {"$in": list(ids)}}, {"_id": 1})
        return {document["_id"] async for document in found}

    def add(self, difference: Difference, work: Work) -> None:
        """Insert; if it has been found meanwhile, the handler runs again."""
        work.insert(self._collection, document_of(difference))

    def save(self, difference: Difference, work: Work) -> None:
        """Replace, if nobody has changed it meanwhile; otherwise the handler runs again."""
        work.replace(self._collection, document_of(difference), version=difference.version)

    def remove(self, difference: Difference, work: Work) -> None:
        """Forget what turned out to be none."""
        work.delete(self._collection, difference.id, version=difference.version)

    async def _found(self, query: dict[str, object], after: str | None, limit: int) -> list[Difference]:
        wanted = query if after is None else {**query, "_id": {"$gt": after}}
        found = self._collection.find(wanted).sort("_id", ASCENDING).limit(limit)
        return [entity_of(Difference, document) async for document in found]


class Standings:
    """The collection ``stripe_drift``: every drift that is known and not mended, whichever run found it."""

    def __init__(self, database: Database) -> None:
        self._collection = database["stripe_drift"]

    async def all(self) -> list[Standing]:
        """Everything that stands, in no order."""
        return [entity_of(Standing, document) async for document in self._collection.find()]

    async def page(self, *, after: str | None, limit: int) -> list[Standing]:
        """What stands, in the order of ids, after one of them."""
        found = self._collection.find({} if after is None else {"_id": {"$gt": after}})
        return [entity_of(Standing, document) async for document in found.sort("_id", ASCENDING).limit(limit)]

    async def find(self, name: str) -> Standing | None:
        """The one of this name."""
        document = await self._collection.find_one({"_id": {"$eq": name}})
        return None if document is None else entity_of(Standing, document)

    def add(self, standing: Standing, work: Work) -> None:
        """Insert; if another run has found it meanwhile, the handler runs again."""
        work.insert(self._collection, document_of(standing))

    def save(self, standing: Standing, work: Work) -> None:
        """Replace, if nobody has changed it meanwhile; otherwise the handler runs again."""
        work.replace(self._collection, document_of(standing), version=standing.version)

    def remove(self, standing: Standing, work: Work) -> None:
        """Forget what is mended."""
        work.delete(self._collection, standing.id, version=standing.version)
