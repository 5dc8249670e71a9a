"""How are the runs over a Stripe account kept, so that they outlive whoever moves them on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.models.runs import Run
from shared.documents import Rows
from shared.messages.billing.errors import StripeRunNotFound, StripeRunUnderWay
from shared.messages.billing.runs import Kind
from shared.mongo import Database, Document

_UNDER_WAY: Final = {"underWay": True}
INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "stripe_runs": [
        # One run of a kind at a time; two would only order the same twice.
        IndexModel([("kind", ASCENDING)], unique=True, partialFilterExpression=_UNDER_WAY),
        IndexModel([("startedAt", DESCENDING)]),
        IndexModel([("kind", ASCENDING), ("finishedAt", DESCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ]
}


class Runs(Rows[Run]):
    """The collection ``stripe_runs``; of a kind of which one is under way, a new one is refused."""

    def __init__(self, database: Database) -> None:
        super().__init__(database["stripe_runs"], Run, taken=StripeRunUnderWay)

    async def get(self, run_id: str) -> Run:
        """A run; StripeRunNotFound if there is none."""
        run = await self._one({"_id": {"$eq": run_id}})
        if run is None:
            raise StripeRunNotFound
        return run

    async def find_under_way(self, kind: Kind) -> Run | None:
        """The run of a kind that goes on by itself."""
        return await self._one({"kind": kind, **_UNDER_WAY})

    async def latest(self, limit: int) -> list[Run]:
        """The latest runs, newest first."""
        return await self._all(self._collection.find().sort([("startedAt", DESCENDING)]).limit(limit))

    async def latest_done(self, kind: Kind) -> Run | None:
        """The run of a kind that came to its end last."""
        done = self._collection.find({"kind": kind, "status": "done"})
        found = await self._all(done.sort([("finishedAt", DESCENDING)]).limit(1))
        return found[0] if found else None

    def _document(self, entity: Run) -> Document:
        return {**super()._document(entity), "underWay": entity.under_way}
