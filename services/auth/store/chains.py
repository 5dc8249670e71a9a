"""Where are tokens kept? In ``access_tokens`` and ``refresh_tokens``, keys only as hashes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Final

from pymongo import ASCENDING, IndexModel

from services.auth.errors import TokenNotFound
from services.auth.models.chains import AccessToken, Grant, RefreshToken, Successor
from services.auth.models.credentials import RefreshTokenText, same_key
from shared.lookup import Lookup
from shared.mongo import Collection, Database, Document
from shared.work import Work

KEPT: Final = timedelta(days=30)
"""How long a token is kept after it (or, for a refresh token, its whole chain) has expired."""
_UNREVOKED: Final[Document] = {"revokedAt": None}


class AccessTokens:
    """What stands behind access tokens."""

    COLLECTION: ClassVar = "access_tokens"
    INDEXES: ClassVar = [
        IndexModel([("rootGrant", ASCENDING)], partialFilterExpression=_UNREVOKED),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=int(KEPT.total_seconds())),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._unrevoked = Lookup(self._documents, "rootGrant", _UNREVOKED)

    async def unrevoked(self, root_grant: str) -> list[AccessToken]:
        """Those of a chain that may still let somebody in: its newest one, since a refresh revokes the one before."""
        documents = await self._unrevoked.find(root_grant)
        return [
            AccessToken(**_shared(document), revoked_at=document["revokedAt"], version=document["version"])
            for document in documents
        ]

    def add(self, token: AccessToken, work: Work) -> None:
        """Store a new one."""
        work.insert(self._documents, _access_document(token))

    def save(self, token: AccessToken, work: Work) -> None:
        """Store what changed."""
        work.replace(self._documents, _access_document(token), version=token.version)


class RefreshTokens:
    """What stands behind refresh tokens; used ones stay as long as their chain, so that theft shows."""

    COLLECTION: ClassVar = "refresh_tokens"
    INDEXES: ClassVar = [
        IndexModel([("rootGrant", ASCENDING)], partialFilterExpression=_UNREVOKED),
        IndexModel([("chainEndsAt", ASCENDING)], expireAfterSeconds=int(KEPT.total_seconds())),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = Lookup(self._documents)
        self._unrevoked = Lookup(self._documents, "rootGrant", _UNREVOKED)

    async def get(self, text: RefreshTokenText) -> RefreshToken:
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

    async def unrevoked(self, root_grant: str) -> list[RefreshToken]:
        """Those of a chain that may still be exchanged: its newest one, or none when the chain is over."""
        return [_refresh_token(document) for document in await self._unrevoked.find(root_grant)]

    def add(self, token: RefreshToken, work: Work) -> None:
        """Store a new one."""
        work.insert(self._documents, _refresh_document(token))

    def save(self, token: RefreshToken, work: Work) -> None:
        """Store what changed."""
        work.replace(self._documents, _refresh_document(token), version=token.version)


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
    }


def _refresh_token(document: Document) -> RefreshToken:
    successor = document["successor"]
    return RefreshToken(
        **_shared(document),
        key_hash=document["key"],
        chain_ends_at=document["chainEndsAt"],
        used_at=document["usedAt"],
        revoked_at=document["revokedAt"],
        successor=successor and Successor(successor["id"], successor["sealed"]),
        version=document["version"],
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
        "version": token.version,
    }


def _refresh_document(token: RefreshToken) -> Document:
    successor = token.successor
    return {
        **_access_document(token),
        "key": token.key_hash,
        "usedAt": token.used_at,
        "chainEndsAt": token.chain_ends_at,
        "successor": successor and {"id": successor.id, "sealed": successor.sealed},
    }
