"""Where are signing keys kept? In ``signing_keys``, their private halves sealed."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar

from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from services.auth.models.signing_keys import Algorithm, KeyState, SigningKey
from shared.mongo import Collection, Database, Document


class SigningKeys:
    """The key pairs behind access tokens. Few; read when a process starts."""

    COLLECTION: ClassVar = "signing_keys"
    INDEXES: ClassVar = [
        IndexModel([("algorithm", ASCENDING)], unique=True, partialFilterExpression={"state": KeyState.ACTIVE.value})
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]

    async def all(self) -> list[SigningKey]:
        """Every key, oldest first."""
        return [_key(document) for document in await self._documents.find().sort("createdAt", ASCENDING).to_list()]

    async def add_first(self, key: SigningKey) -> None:
        """Store the first active key of its algorithm, at a start and hence outside of any message.

        If another instance was quicker, its key stays, and this one is forgotten.
        """
        with suppress(DuplicateKeyError):
            await self._documents.insert_one(_document(key))


def _key(document: Document) -> SigningKey:
    algorithm: Algorithm = document["algorithm"]
    return SigningKey(
        id=document["_id"],
        algorithm=algorithm,
        state=KeyState(document["state"]),
        public_jwk=document["publicJwk"],
        sealed_private=document["private"],
        created_at=document["createdAt"],
        version=document["version"],
    )


def _document(key: SigningKey) -> Document:
    return {
        "_id": key.id,
        "algorithm": key.algorithm,
        "state": key.state.value,
        "publicJwk": key.public_jwk,
        "private": key.sealed_private,
        "createdAt": key.created_at,
        "version": key.version,
    }
