"""Where are tokens kept? In ``access_tokens`` and ``refresh_tokens``, keys only as hashes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Final

from pymongo import ASCENDING, IndexModel
from pymongo.asynchronous.cursor import AsyncCursor

from services.auth.tokens.credentials import RefreshTokenString, same_key
from services.auth.tokens.models import FAMILY_LIFETIME, AccessToken, Grant, RefreshToken, Successor
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.auth.errors import TokenNotFound
from shared.mongo import Collection, Database, Document

KEPT: Final = timedelta(days=30)
"""How long a token is kept after it (or, for a refresh token, its whole chain) has expired."""
_UNREVOKED: Final[Document] = {"revokedAt": None}
_OF_USER: Final = IndexModel([("userId", ASCENDING), ("revokedAt", ASCENDING)])
"""Finds a user's sessions, and, for an erasure, what is left of those that are over."""


class AccessTokens:
    """What stands behind access tokens."""

    COLLECTION: ClassVar = "access_tokens"
    INDEXES: ClassVar = [
        _OF_USER,
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=int(KEPT.total_seconds())),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)
        self._unrevoked = BatchLoader(self._documents, "userId", _UNREVOKED)

    async def find(self, id: str) -> AccessToken | None:  # noqa: A002 -- the field's name
        """The one with this id, which is the token's ``jti``."""
        document = await self._by_id.find_one(id)
        return None if document is None else _access_token(document)

    async def beside(self, token: RefreshToken) -> list[AccessToken]:
        """Those of its chain that may still let somebody in: the one that was issued with its newest refresh token."""
        if token.access_token_id is None:
            return [each for each in await self.unrevoked(token.user_id) if each.root_grant == token.root_grant]
        found = await self.find(token.access_token_id)
        return [] if found is None or found.revoked_at is not None else [found]

    async def unrevoked(self, user_id: str) -> list[AccessToken]:
        """A user's that may still let somebody in, and those that have expired since."""
        return [_access_token(document) for document in await self._unrevoked.find(user_id)]

    async def some_of(self, user_id: str, most: int) -> list[AccessToken]:
        """So many of a user's, revoked or not, the unrevoked ones first."""
        return [_access_token(document) async for document in _some_of(self._documents, user_id, most)]

    def add(self, token: AccessToken, work: Work) -> None:
        """Store a new one."""
        work.insert(self._documents, _access_document(token))

    def save(self, token: AccessToken, work: Work) -> None:
        """Store what changed."""
        work.replace(self._documents, _access_document(token), version=token.version)

    def remove(self, token: AccessToken, work: Work) -> None:
        """Keep nothing of it."""
        work.delete(self._documents, token.id, version=token.version)


class RefreshTokens:
    """What stands behind refresh tokens; used ones stay as long as their chain, so that theft shows."""

    COLLECTION: ClassVar = "refresh_tokens"
    INDEXES: ClassVar = [
        _OF_USER,
        IndexModel([("chainEndsAt", ASCENDING)], expireAfterSeconds=int(KEPT.total_seconds())),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)
        self._unrevoked = BatchLoader(self._documents, "userId", _UNREVOKED)

    async def get(self, text: RefreshTokenString) -> RefreshToken:
        """The one that an app holds.

        Raises:
            TokenNotFound: no such id, or another key; which of them is not told.
        """
        document = await self._by_id.find_one(text.id)
        if document is None or not same_key(text.key, document["key"]):
            raise TokenNotFound
        return _refresh_token(document)

    async def find(self, id: str) -> RefreshToken | None:  # noqa: A002 -- the field's name
        """The one with this id, whoever holds it."""
        document = await self._by_id.find_one(id)
        return None if document is None else _refresh_token(document)

    async def unrevoked(self, user_id: str) -> list[RefreshToken]:
        """A user's that may still be exchanged, and those that have expired since: of each chain the newest one."""
        return [_refresh_token(document) for document in await self._unrevoked.find(user_id)]

    async def some_of(self, user_id: str, most: int) -> list[RefreshToken]:
        """So many of a user's, revoked or not, the unrevoked ones first."""
        return [_refresh_token(document) async for document in _some_of(self._documents, user_id, most)]

    def add(self, token: RefreshToken, work: Work) -> None:
        """Store a new one."""
        work.insert(self._documents, _refresh_document(token))

    def save(self, token: RefreshToken, work: Work) -> None:
        """Store what changed."""
        work.replace(self._documents, _refresh_document(token), version=token.version)

    def remove(self, token: RefreshToken, work: Work) -> None:
        """Keep nothing of it."""
        work.delete(self._documents, token.id, version=token.version)


def _some_of(documents: Collection, user_id: str, most: int) -> AsyncCursor[Document]:
    return documents.find({"userId": user_id}).sort("revokedAt", ASCENDING).limit(most)


def _shared(document: Document) -> dict[str, Any]:
    """The fields that both kinds of tokens have."""
    return {
        "id": document["_id"],
        "client_id": document["clientId"],
        "user_id": document["userId"],
        "grant": Grant(document["grant"]["type"], document["grant"]["value"]),
        "root_grant": document["rootGrant"],
        "cidr_blocks": tuple(document["cidrBlocks"]),
        "created_at": document["createdAt"],
        "expires_at": document["expiresAt"],
        "revoked_at": document["revokedAt"],
        "network": document.get("network"),
        "version": document["version"],
    }


def _access_token(document: Document) -> AccessToken:
    return AccessToken(**_shared(document))


def _refresh_token(document: Document) -> RefreshToken:
    successor = document["successor"]
    return RefreshToken(
        **_shared(document),
        key_hash=document["key"],
        # Optional are the fields that the first documents lacked.
        family_began_at=document.get("chainBeganAt", document["chainEndsAt"] - FAMILY_LIFETIME),
        family_ends_at=document["chainEndsAt"],
        platform=document.get("platform"),
        access_token_id=document.get("accessTokenId"),
        used_at=document["usedAt"],
        successor=successor and Successor(successor["id"], successor["sealed"]),
    )


def _access_document(token: AccessToken | RefreshToken) -> Document:
    return {
        "_id": token.id,
        "clientId": token.client_id,
        "userId": token.user_id,
        "grant": {"type": token.grant.type, "value": token.grant.value},
        "rootGrant": token.root_grant,
        "cidrBlocks": list(token.cidr_blocks),
        "createdAt": token.created_at,
        "expiresAt": token.expires_at,
        "revokedAt": token.revoked_at,
        "network": token.network,
        "version": token.version,
    }


def _refresh_document(token: RefreshToken) -> Document:
    successor = token.successor
    return {
        **_access_document(token),
        "key": token.key_hash,
        "usedAt": token.used_at,
        "chainBeganAt": token.family_began_at,
        "chainEndsAt": token.family_ends_at,
        "platform": token.platform,
        "accessTokenId": token.access_token_id,
        "successor": successor and {"id": successor.id, "sealed": successor.sealed},
    }
