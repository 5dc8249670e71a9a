"""Store of the features of users."""

from __future__ import annotations

from typing import Any, Final

from services.auth.clients.models import Client
from services.auth.entitlements.models import Entitlements, entitlement_claims
from shared.documents import Rows


class EntitlementRows(Rows[Entitlements]):
    """The collection ``entitlements``: one document for each user of whom billing has reported features."""

    COLLECTION: Final = "entitlements"
    INDEXES: Final = ()

    async def claims(self, client: Client | None, user_id: str) -> dict[str, Any]:
        """The entitlement claims of an access token; empty if the client does not ask for them."""
        if client is None or not client.entitlements_claim:
            return {}
        return entitlement_claims(await self.find(user_id))
