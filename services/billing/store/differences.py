"""How is kept what runs have found, and what of it still stands?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.models.drift import Difference, Standing
from shared.documents import Rows
from shared.mongo import Database

INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "stripe_differences": [
        IndexModel([("runId", ASCENDING), ("_id", ASCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ],
    "stripe_drift": [],
}
OPEN: Final = ("suspected", "ordered")
"""The states of a difference that is to be looked at again."""


class Differences(Rows[Difference]):
    """The collection ``stripe_differences``: for each run one document for each object that it stumbled over."""

    def __init__(self, database: Database) -> None:
        super().__init__(database["stripe_differences"], Difference)

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

    async def _found(self, query: dict[str, object], after: str | None, limit: int) -> list[Difference]:
        wanted = query if after is None else {**query, "_id": {"$gt": after}}
        return await self._all(self._collection.find(wanted).sort("_id", ASCENDING).limit(limit))


class Standings(Rows[Standing]):
    """The collection ``stripe_drift``: every drift that is known and not mended, whichever run found it."""

    def __init__(self, database: Database) -> None:
        super().__init__(database["stripe_drift"], Standing)

    async def all(self) -> list[Standing]:
        """Everything that stands, in no order."""
        return await self._all(self._collection.find())

    async def page(self, *, after: str | None, limit: int) -> list[Standing]:
        """What stands, in the order of ids, after one of them."""
        found = self._collection.find({} if after is None else {"_id": {"$gt": after}})
        return await self._all(found.sort("_id", ASCENDING).limit(limit))

    async def find(self, name: str) -> Standing | None:
        """The one of this name."""
        return await self._one({"_id": {"$eq": name}})
