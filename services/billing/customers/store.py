"""Store of the mappings from Stripe customers to users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.billing.customers.models import ProviderMapping
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.documents import Rows
from shared.mongo import Database

STRIPE: Final = "stripe"
_NOT_REMOVED: Final = {"removedAt": None}


class ProviderMappings(Rows[ProviderMapping]):
    """The collection ``provider_mappings``; its queries ignore removed mappings."""

    COLLECTION: Final = "provider_mappings"
    INDEXES: Final = (
        # Partial: a removed mapping stays on record, and its customer may be mapped again.
        IndexModel(
            [("providerType", ASCENDING), ("providerValue", ASCENDING)],
            unique=True,
            partialFilterExpression=_NOT_REMOVED,
        ),
        IndexModel([("userId", ASCENDING)]),
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._by_customer = BatchLoader(self._collection, "providerValue", {"providerType": STRIPE, **_NOT_REMOVED})

    async def find(self, customer_id: str) -> ProviderMapping | None:
        """The mapping of a Stripe customer."""
        return self._read_or_none(await self._by_customer.find_one(customer_id))

    async def find_by_user(self, user_id: str) -> ProviderMapping | None:
        """The mapping of a user's latest customer."""
        mappings = self._collection.find({"userId": {"$eq": user_id}, "providerType": STRIPE, **_NOT_REMOVED})
        latest = await self._all(mappings.sort([("createdAt", DESCENDING), ("_id", DESCENDING)]).limit(1))
        return latest[0] if latest else None

    async def customers_of(self, user_id: str) -> list[str]:
        """The Stripe IDs of a user's customers, the latest first."""
        query = {"userId": {"$eq": user_id}, "providerType": STRIPE, **_NOT_REMOVED}
        latest = self._collection.find(query).sort([("createdAt", DESCENDING), ("_id", DESCENDING)])
        return [document["providerValue"] async for document in latest]

    async def users_of(self, customer_ids: Iterable[str]) -> dict[str, str]:
        """The user IDs of those of these customers that are mapped, by customer ID."""
        query = {"providerType": STRIPE, "providerValue": {"$in": list(customer_ids)}, **_NOT_REMOVED}
        return {document["providerValue"]: document["userId"] async for document in self._collection.find(query)}

    def attach(self, customer_id: str, user_id: str, work: Work) -> None:
        """Map a customer to a user; if another work has mapped it meanwhile, the handler runs again."""
        self.add(
            ProviderMapping(
                id=work.new_id("provmap"),
                user_id=user_id,
                provider_type=STRIPE,
                provider_value=customer_id,
                created_at=work.now,
                updated_at=work.now,
            ),
            work,
        )
