"""Store of the authorizations behind magic links."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel

from services.auth.magic_links.models import Authorization, challenges
from services.auth.tokens.credentials import Code, require_key
from shared.batch_loader import BatchLoader
from shared.documents import Rows, without_blank_texts
from shared.indexes import expiry_index
from shared.messages.auth.errors import TokenNotFound
from shared.mongo import Database, Document

RETENTION: Final = timedelta(days=7)
"""Counted from ``expires_at``. Until then a code is refused as used or expired, afterwards as unknown."""
_OPEN: Final[Document] = {"usedAt": None, "revokedAt": None}
_WITH_TYPED_CODE: Final[Document] = {"typedCode": {"$type": "object"}}


class Authorizations(Rows[Authorization]):
    """The collection ``authorizations``; keys are stored as hashes."""

    COLLECTION: Final = "authorizations"
    INDEXES: Final = (
        # Not limited to open authorizations: an erasure has to find all of a person.
        IndexModel([("identifierValue", ASCENDING), ("revokedAt", ASCENDING)]),
        IndexModel([("codeChallenge", ASCENDING), ("createdAt", DESCENDING)], partialFilterExpression=_WITH_TYPED_CODE),
        expiry_index("expiresAt", RETENTION),
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._open_by_value = BatchLoader(self._collection, "identifierValue", _OPEN)

    async def get_by_code(self, code: Code) -> Authorization:
        """The authorization of a code; raises TokenNotFound as ``require_key``."""
        return require_key(await self.find(code.id), code.key)

    async def get_by_verifier(self, code_verifier: str) -> Authorization:
        """The newest authorization with a typed code that was requested by the holder of a code verifier.

        Raises:
            TokenNotFound: there is none.
        """
        query = {"codeChallenge": {"$in": challenges(code_verifier)}, **_WITH_TYPED_CODE}
        newest = self._collection.find(query).sort([("createdAt", DESCENDING), ("_id", DESCENDING)]).limit(1)
        found = await self._all(newest)
        if not found:
            raise TokenNotFound
        return found[0]

    async def open_competitors(self, authorization: Authorization, *, at: datetime) -> list[Authorization]:
        """Other authorizations of the same address and app that can still be redeemed."""
        return [each for each in await self.open_others(authorization, at=at) if each.competes_with(authorization)]

    async def open_others(self, authorization: Authorization, *, at: datetime) -> list[Authorization]:
        """Other authorizations of the same address that can still be redeemed, for any app."""
        found = map(self._read, await self._open_by_value.find(authorization.identifier_value))
        return [other for other in found if other.id != authorization.id and at < other.expires_at]

    async def newest_open(self, addresses: Iterable[str], *, at: datetime) -> Authorization | None:
        """The newest authorization of one of these addresses that can still be redeemed; None if there is none."""
        documents = [each for address in addresses for each in await self._open_by_value.find(address)]
        found = [each for each in map(self._read, documents) if at < each.expires_at]
        return max(found, key=lambda authorization: authorization.id, default=None)

    async def open_until(self, address: str, *, at: datetime) -> datetime | None:
        """When the last authorization of an address that can still be redeemed expires; None if there is none."""
        found = map(self._read, await self._open_by_value.find(address))
        return max((each.expires_at for each in found if at < each.expires_at), default=None)

    def _upgraded(self, document: Document) -> Document:
        # Empty values in older documents belong to no device.
        return without_blank_texts(document, "device")
