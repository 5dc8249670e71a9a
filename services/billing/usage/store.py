"""Store of reported usage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.billing.usage.models import UsageRow
from shared.documents import Rows
from shared.indexes import expiry_index


class UsageRows(Rows[UsageRow]):
    """The collection ``usage``: one document for each entry, until it expires."""

    COLLECTION: Final = "usage"
    INDEXES: Final = (
        IndexModel([("userId", ASCENDING)]),
        expiry_index("expiresAt"),
    )

    async def with_ids(self, ids: Iterable[str]) -> dict[str, UsageRow]:
        """The rows with these IDs, by ID."""
        found = await self._all(self._collection.find({"_id": {"$in": list(ids)}}))
        return {row.id: row for row in found}
