"""How are Stripe's events kept, so that none is only seen and never followed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.models.events import KeptEvent
from services.billing.store.documents import document_of, entity_of
from shared.lookup import Lookup
from shared.mongo import Database
from shared.work import Work

_WAITING: Final = {"handledAt": None}
INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "stripe_events": [
        IndexModel([("account", ASCENDING), ("livemode", ASCENDING), ("stpEventId", ASCENDING)], unique=True),
        IndexModel([("objectId", ASCENDING)], partialFilterExpression=_WAITING),
        IndexModel([("type", ASCENDING), ("madeAt", ASCENDING)]),
        IndexModel([("madeAt", ASCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
    ]
}


class StripeEvents:
    """The collection ``stripe_events``."""

    def __init__(self, database: Database) -> None:
        self._collection = database["stripe_events"]
        self._by_id = Lookup(self._collection)
        self._waiting = Lookup(self._collection, "objectId", dict(_WAITING))

    async def find(self, event_id: str) -> KeptEvent | None:
        """An event by our id."""
        document = await self._by_id.find_one(event_id)
        return None if document is None else entity_of(KeptEvent, document)

    async def waiting_of(self, object_id: str) -> list[KeptEvent]:
        """The events about an object that nothing has come of yet, in no order."""
        return [entity_of(KeptEvent, document) for document in await self._waiting.find(object_id)]

    def add(self, event: KeptEvent, work: Work) -> None:
        """Insert; if the event has been kept meanwhile, the handler runs again."""
        work.insert(self._collection, document_of(event))

    def save(self, event: KeptEvent, work: Work) -> None:
        """Replace, if nobody has changed it meanwhile; otherwise the handler runs again."""
        work.replace(self._collection, document_of(event), version=event.version)
