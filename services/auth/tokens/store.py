"""Stores of access tokens and refresh tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from pymongo import ASCENDING, DESCENDING, IndexModel, UpdateOne

from services.auth.tokens.credentials import RefreshTokenString
from services.auth.tokens.models import FAMILY_LIFETIME, AccessToken, RefreshToken, TokenFamily
from shared.batch_loader import BatchLoader
from shared.documents import Rows
from shared.indexes import expiry_index
from shared.messages.auth.errors import TokenNotFound
from shared.migrations import Migration, MigrationContext, replacing
from shared.mongo import Collection, Database, Document

RETENTION: Final = timedelta(days=30)
"""Counted from the expiry of an access token, and from the end of a refresh token's family."""
_UNREVOKED: Final[Document] = {"revokedAt": None}
_BY_USER: Final = IndexModel([("userId", ASCENDING), ("revokedAt", ASCENDING)])
"""Finds the sessions of a user and, for an erasure, the remains of ended ones."""
_OLDER: Final[Document] = {"rootGrant": {"$type": "string"}}
"""Documents of before 2026-11-28, whose root grant has no type and whose ``network`` is not in ``cidrBlocks``."""
_BY_AGE: Final = IndexModel([("rootGrant", ASCENDING)], partialFilterExpression=_OLDER)
"""Holds the older documents only, so it costs nothing once they are rewritten."""
_WITH_REPLY: Final[Document] = {"successor.sealed": {"$gt": ""}}
"""Used refresh tokens of before 2026-11-29, which hold the reply with their successor."""
_BY_STORED_REPLY: Final = IndexModel([("usedAt", ASCENDING)], partialFilterExpression=_WITH_REPLY)
"""Likewise."""


def _upgraded(document: Document) -> Document:
    """A document in the present shape.

    Only logins by magic link are refreshed, so the root of a refreshed token is an authorization.
    """
    if isinstance(document["rootGrant"], str):
        kind = document["grant"]["type"]
        root = {"type": "authorization_code" if kind == "refresh_token" else kind, "value": document["rootGrant"]}
        network = document.get("network")
        document = {**document, "rootGrant": root, "cidrBlocks": [] if network is None else [network]}
        document.pop("network", None)
    return document


def _upgraded_refresh_token(document: Document) -> Document:
    if "chainBeganAt" not in document:
        document = {**document, "chainBeganAt": document["chainEndsAt"] - FAMILY_LIFETIME}
    return _upgraded(document)


class AccessTokens(Rows[AccessToken]):
    """The collection ``access_tokens``: those that no refresh token was issued with, and all of before 2026-11-29."""

    COLLECTION: Final = "access_tokens"
    INDEXES: Final = (
        _BY_USER,
        _BY_AGE,
        expiry_index("expiresAt", RETENTION),
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._unrevoked = BatchLoader(self._collection, "userId", _UNREVOKED)

    async def issued_with(self, token: RefreshToken) -> list[AccessToken]:
        """The unrevoked documents of the family whose newest refresh token this is; only older families have any."""
        if token.access_token is not None:
            return []
        return [each for each in await self.unrevoked(token.user_id) if each.root_grant == token.root_grant]

    async def unrevoked(self, user_id: str) -> list[AccessToken]:
        """All access tokens of a user that are not revoked, including expired ones."""
        return [self._read(document) for document in await self._unrevoked.find(user_id)]

    async def clients_of(self, user_id: str) -> set[str]:
        """The clients of all stored access tokens of a user: those of logins within about a month."""
        return set(await self._collection.distinct("clientId", {"userId": {"$eq": user_id}}))

    async def some_of_user(self, user_id: str, limit: int) -> list[AccessToken]:
        """Up to ``limit`` access tokens of a user, unrevoked ones first."""
        return await self._all(self._collection.find({"userId": user_id}).sort("revokedAt", ASCENDING).limit(limit))

    def _upgraded(self, document: Document) -> Document:
        return _upgraded(document)


class RefreshTokens(Rows[RefreshToken]):
    """The collection ``refresh_tokens``: the newest one of each family; keys are stored as hashes.

    It is kept as long as its family, so that a second use of an older one is recognized as theft.
    """

    COLLECTION: Final = "refresh_tokens"
    INDEXES: Final = (
        _BY_USER,
        _BY_AGE,
        _BY_STORED_REPLY,
        expiry_index("chainEndsAt", RETENTION),
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._unrevoked = BatchLoader(self._collection, "userId", _UNREVOKED)

    async def get_by_string(self, string: RefreshTokenString) -> RefreshToken:
        """The newest token of the family of the token that a client sent, which may have been used.

        Raises:
            TokenNotFound: the token is unknown.
        """
        token = await self.find(string.id)
        if token is None or not token.recognizes(string):
            raise TokenNotFound
        return token

    async def issued_for(self, token: RefreshToken) -> RefreshToken | None:
        """The newest token that was issued in exchange for ``token``; None if it is no longer stored.

        Since 2026-11-30 that is the same document. Before, the successor was another one.
        """
        if token.successor is None:
            return token
        successor = await self.find(token.successor.id)
        if successor is None or successor.previous_key_hash is not None:
            return successor
        reply = successor.sealed_reply or token.successor.sealed
        return replace(successor, previous_key_hash=token.key_hash, sealed_reply=reply)

    async def unrevoked(self, user_id: str) -> list[RefreshToken]:
        """All refresh tokens of a user that are not revoked, including expired ones: the newest one of each family."""
        return [self._read(document) for document in await self._unrevoked.find(user_id)]

    async def last_login(self, user_id: str) -> TokenFamily | None:
        """The family that began last, ended ones included; None if the user has not logged in for about a year."""
        found = self._collection.find({"userId": {"$eq": user_id}}).sort("chainBeganAt", DESCENDING).limit(1)
        return next((token.family for token in await self._all(found)), None)

    async def clients_of(self, user_id: str) -> set[str]:
        """The clients of all stored refresh tokens of a user: those of logins within about a year."""
        return set(await self._collection.distinct("clientId", {"userId": {"$eq": user_id}}))

    async def some_of_user(self, user_id: str, limit: int) -> list[RefreshToken]:
        """Up to ``limit`` refresh tokens of a user, unrevoked ones first."""
        return await self._all(self._collection.find({"userId": user_id}).sort("revokedAt", ASCENDING).limit(limit))

    def _upgraded(self, document: Document) -> Document:
        return _upgraded_refresh_token(document)


async def _move_replies(_context: MigrationContext, tokens: Collection, documents: Sequence[Document]) -> int:
    """Copy the replies that repeats may still ask for to the successors, then remove them all from the used tokens."""
    copies = [
        # A reply that the successor already has is newer.
        UpdateOne(
            {"_id": each["successor"]["id"], "revokedAt": None, "sealedReply": None},
            {"$set": {"sealedReply": each["successor"]["sealed"]}},
        )
        for each in documents
    ]
    await tokens.bulk_write(copies, ordered=False)
    removals = [
        UpdateOne({"_id": each["_id"], "version": each["version"]}, {"$set": {"successor.sealed": ""}})
        for each in documents
    ]
    return (await tokens.bulk_write(removals, ordered=False)).modified_count


MIGRATIONS: Final = (
    Migration(
        version=1,
        title="access tokens with typed root grants",
        collection=AccessTokens.COLLECTION,
        older=_OLDER,
        change=replacing(_upgraded),
    ),
    Migration(
        version=2,
        title="refresh tokens with typed root grants",
        collection=RefreshTokens.COLLECTION,
        older=_OLDER,
        change=replacing(_upgraded_refresh_token),
    ),
)
REPLIES_MIGRATION: Final = Migration(
    version=4,
    title="replies with unused refresh tokens only",
    collection=RefreshTokens.COLLECTION,
    older={"usedAt": {"$type": "date"}, **_WITH_REPLY},
    change=_move_replies,
)
