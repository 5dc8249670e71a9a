"""Store of account links."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel

from services.auth.account_links.models import AccountLink
from shared.documents import Rows
from shared.indexes import expiry_index

MAX_OPEN: Final = 50
"""Links of one account that end with a new password. Limits allow far fewer within the lifetime of a link."""


class AccountLinks(Rows[AccountLink]):
    """The collection ``account_links``; keys are stored as hashes, and links are removed when they expire."""

    COLLECTION: Final = "account_links"
    INDEXES: Final = (
        IndexModel([("accountId", ASCENDING)]),
        expiry_index("expiresAt"),
    )

    async def of_account(self, account_id: str) -> list[AccountLink]:
        """The links of an account that have not been redeemed."""
        return await self._all(self._collection.find({"accountId": {"$eq": account_id}}).limit(MAX_OPEN))
