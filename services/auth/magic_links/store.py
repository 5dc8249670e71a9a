"""Where are magic links kept? In ``authorizations``, their keys only as hashes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar, Final

from pymongo import ASCENDING, IndexModel

from services.auth.magic_links.models import Authorization
from services.auth.tokens.credentials import Code, same_key
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.auth.errors import TokenNotFound
from shared.messages.auth.magic_links import Device
from shared.mongo import Collection, Database, Document

KEPT: Final = timedelta(days=7)
"""How long after its time a link is still refused by its own name (used, expired) instead of as unknown."""
_OPEN: Final[Document] = {"usedAt": None, "revokedAt": None}


class Authorizations:
    """The permissions behind magic links."""

    COLLECTION: ClassVar = "authorizations"
    INDEXES: ClassVar = [
        # Those that are over too: when a person is erased, theirs are found.
        IndexModel([("identifierValue", ASCENDING), ("revokedAt", ASCENDING)]),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=int(KEPT.total_seconds())),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)
        self._open_by_value = BatchLoader(self._documents, "identifierValue", _OPEN)

    async def get(self, code: Code) -> Authorization:
        """The one behind a code.

        Raises:
            TokenNotFound: no such id, or another key; which of them is not told.
        """
        document = await self._by_id.find_one(code.id)
        if document is None or not same_key(code.key, document["key"]):
            raise TokenNotFound
        return _authorization(document)

    async def others_open(self, authorization: Authorization, *, at: datetime) -> list[Authorization]:
        """Those of the same address and app that could still be redeemed."""
        found = map(_authorization, await self._open_by_value.find(authorization.identifier_value))
        return [other for other in found if other.rivals(authorization) and at < other.expires_at]

    def add(self, authorization: Authorization, work: Work) -> None:
        """Store a new one."""
        work.insert(self._documents, _document(authorization))

    def save(self, authorization: Authorization, work: Work) -> None:
        """Store what changed."""
        work.replace(self._documents, _document(authorization), version=authorization.version)


def _authorization(document: Document) -> Authorization:
    device = document["device"]
    return Authorization(
        id=document["_id"],
        key_hash=document["key"],
        client_id=document["clientId"],
        state=document["state"],
        code_challenge_method=document["codeChallengeMethod"],
        code_challenge=document["codeChallenge"],
        redirect_uri=document["redirectUri"],
        identifier_type=document["identifierType"],
        identifier_value=document["identifierValue"],
        device=device
        and Device(platform=device["platform"], beak_id=device["beakId"], fingerprint=device["fingerprint"]),
        created_at=document["createdAt"],
        expires_at=document["expiresAt"],
        used_at=document["usedAt"],
        revoked_at=document["revokedAt"],
        wrong_verifiers=document["wrongVerifiers"],
        version=document["version"],
    )


def _document(authorization: Authorization) -> Document:
    device = authorization.device
    return {
        "_id": authorization.id,
        "key": authorization.key_hash,
        "clientId": authorization.client_id,
        "state": authorization.state,
        "codeChallengeMethod": authorization.code_challenge_method,
        "codeChallenge": authorization.code_challenge,
        "redirectUri": authorization.redirect_uri,
        "identifierType": authorization.identifier_type,
        "identifierValue": authorization.identifier_value,
        "device": device and {"platform": device.platform, "beakId": device.beak_id, "fingerprint": device.fingerprint},
        "createdAt": authorization.created_at,
        "expiresAt": authorization.expires_at,
        "usedAt": authorization.used_at,
        "revokedAt": authorization.revoked_at,
        "wrongVerifiers": authorization.wrong_verifiers,
        "version": authorization.version,
    }
