"""Store of the features of users."""

from __future__ import annotations

from typing import Final

from services.billing.entitlements.models import Entitlements
from shared.bus.work import Insert, Replace, Work
from shared.documents import Rows


class EntitlementRows(Rows[Entitlements]):
    """The collection ``entitlements``: one document for each user who ever had a feature."""

    COLLECTION: Final = "entitlements"
    INDEXES: Final = ()

    def written_by(self, work: Work, user_id: str) -> bool:
        """Whether a work writes the row of a user already."""
        return any(
            isinstance(write, Insert | Replace)
            and write.collection is self._collection
            and write.document["_id"] == user_id
            for write in work.writes
        )
