"""Store of texted codes."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pymongo import ASCENDING, IndexModel

from services.auth.phone.models import PhoneCode
from services.auth.tokens.credentials import hash_key
from shared.batch_loader import BatchLoader
from shared.documents import Rows
from shared.indexes import expiry_index
from shared.mongo import Database

RETENTION: Final = timedelta(hours=1)
"""Counted from ``expires_at``; the margin is for MongoDB's clock, which may be ahead. A deleted code is refused like an
expired one."""


class PhoneCodes(Rows[PhoneCode]):
    """The collection ``phone_codes``; codes and nonces are stored as hashes."""

    COLLECTION: Final = "phone_codes"
    INDEXES: Final = (
        IndexModel([("nonce", ASCENDING)], unique=True),
        # For exports and erasures.
        IndexModel([("phoneNumber", ASCENDING)]),
        expiry_index("expiresAt", RETENTION),
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._by_nonce = BatchLoader(self._collection, "nonce")

    async def find(self, nonce: str) -> PhoneCode | None:
        """The code that was requested with this nonce, if there is one."""
        return self._read_or_none(await self._by_nonce.find_one(hash_key(nonce)))
