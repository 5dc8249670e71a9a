"""How is it kept which user a Stripe customer belongs to?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.models.mappings import ProviderMapping
from shared.bus.work import Work
from shared.documents import document_of, entity_of
from shared.mongo import Database

STRIPE: Final = "stripe"
_NOT_REMOVED: Final = {"removedAt": None}
INDEXES: Final[Mapping[str, Sequence[IndexModel]]] = {
    "provider_mappings": [
        # Partial: a mapping that was removed stays for the record and makes room for another.
        IndexModel(
            [("providerType", ASCENDING), ("providerValue", ASCENDING)],
            unique=True,
            partialFilterExpression=_NOT_REMOVED,
        ),
        IndexModel([("userId", ASCENDING)]),
    ]
}


class ProviderMappings:
    """The collection ``provider_mappings``."""

    def __init__(self, database: Database) -> None:
        self._collection = database["provider_mappings"]

    async def find(self, customer_id: str) -> ProviderMapping | None:
        """The mapping of a customer that holds now."""
        query = {"providerType": STRIPE, "providerValue": {"$eq": customer_id}, **_NOT_REMOVED}
        document = await self._collection.find_one(query)
        return None if document is None else entity_of(ProviderMapping, document)

    async def find_by_user(self, user_id: str) -> ProviderMapping | None:
        """The mapping of a user's latest customer."""
        query = {"userId": {"$eq": user_id}, "providerType": STRIPE, **_NOT_REMOVED}
        document = await self._collection.find_one(query, sort=[("createdAt", DESCENDING), ("_id", DESCENDING)])
        return None if document is None else entity_of(ProviderMapping, document)

    async def customers_of(self, user_id: str) -> list[str]:
        """The customers that are a user's now, in no order."""
        query = {"userId": {"$eq": user_id}, "providerType": STRIPE, **_NOT_REMOVED}
        return [document["providerValue"] async for document in self._collection.find(query)]

    async def users_of(self, customer_ids: Iterable[str]) -> dict[str, str]:
        """The users of customers, for those that are somebody's now."""
        query = {"providerType": STRIPE, "providerValue": {"$in": list(customer_ids)}, **_NOT_REMOVED}
        return {document["providerValue"]: document["userId"] async for document in self._collection.find(query)}

    def add(self, customer_id: str, user_id: str, work: Work) -> None:
        """Insert a mapping; if the customer has been mapped meanwhile, the handler runs again."""
        mapping = ProviderMapping(
            id=work.new_id("provmap"),
            user_id=user_id,
            provider_type=STRIPE,
            provider_value=customer_id,
            created_at=work.now,
            updated_at=work.now,
        )
        work.insert(self._collection, document_of(mapping))

    def save(self, mapping: ProviderMapping, work: Work) -> None:
        """Replace, if nobody has changed it meanwhile; otherwise the handler runs again."""
        work.replace(self._collection, document_of(mapping), version=mapping.version)
