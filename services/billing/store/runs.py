"""How are the runs over a Stripe account kept, so that they outlive whoever moves them on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.errors import StripeRunNotFound, StripeRunUnderWay
from services.billing.models.runs import Run
from services.billing.store.documents import document_of, entity_of
from shared.messages.stripe_runs import Kind
from shared.mongo import Database, Document
from shared.work import Work

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


class Runs:
    """The collection ``stripe_runs``."""

    def __init__(self, database: Database) -> None:
        self._collection = database["stripe_runs"]

    async def get(self, run_id: str) -> Run:
        """A run; StripeRunNotFound if there is none."""
        document = await self._collection.find_one({"_id": {"$eq": run_id}})
        if document is None:
            raise StripeRunNotFound
        return entity_of(Run, document)

    async def find_under_way(self, kind: Kind) -> Run | None:
        """The run of a kind that goes on by itself."""
        document = await self._collection.find_one({"kind": kind, **_UNDER_WAY})
        return None if document is None else entity_of(Run, document)

    async def latest(self, limit: int) -> list[Run]:
        """The latest runs, newest first."""
        found = self._collection.find().sort([("startedAt", DESCENDING)]).limit(limit)
        return [entity_of(Run, document) async for document in found]

    async def latest_done(self, kind: Kind) -> Run | None:
        """The run of a kind that came to its end last."""
        document = await self._collection.find_one({"kind": kind, "status": "done"}, sort=[("finishedAt", DESCENDING)])
        return None if document is None else entity_of(Run, document)

    def add(self, run: Run, work: Work) -> None:
        """Insert; StripeRunUnderWay if another one of its kind began meanwhile."""
        work.insert(self._collection, _document(run), taken=StripeRunUnderWay)

    def save(self, run: Run, work: Work) -> None:
        """Replace, if nobody has changed it meanwhile; otherwise the handler runs again."""
        work.replace(self._collection, _document(run), version=run.version)


def _document(run: Run) -> Document:
    return {**document_of(run), "underWay": run.under_way}
