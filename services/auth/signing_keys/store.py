"""Where are signing keys kept? In ``signing_keys``, all in one document, their private halves sealed."""

from __future__ import annotations

from contextlib import suppress
from typing import ClassVar, Final

from pymongo.errors import DuplicateKeyError

from services.auth.signing_keys.models import KeySet, KeyState, SigningKey
from shared.bus.work import Work
from shared.mongo import Collection, Database, Document

RING: Final = "ring"


class SigningKeys:
    """The key pairs behind tokens. A handful, which change together: one document, one version."""

    COLLECTION: ClassVar = "signing_keys"

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]

    async def find(self) -> KeySet | None:
        """All keys; None before the first start has made one."""
        document = await self._documents.find_one({"_id": RING})
        return None if document is None else _ring(document)

    async def get(self) -> KeySet:
        """All keys.

        Raises:
            RuntimeError: there are none, though a start makes one.
        """
        ring = await self.find()
        if ring is None:
            raise RuntimeError("the signing keys are gone from the database")
        return ring

    def save(self, ring: KeySet, work: Work) -> None:
        """Store what changed."""
        work.replace(self._documents, _document(ring), version=ring.version)

    async def add_first(self, ring: KeySet) -> None:
        """Store the first key, at a start and hence outside of any message.

        If another instance was quicker, its key stays, and this one is forgotten.
        """
        with suppress(DuplicateKeyError):
            await self._documents.insert_one(_document(ring))

    async def seal_again(self, ring: KeySet) -> None:
        """Store private halves that were sealed anew, at a start and hence outside of any message.

        If the keys have changed since they were read, nothing is stored, and the next start tries again.
        """
        document = {**_document(ring), "version": ring.version + 1}
        await self._documents.replace_one({"_id": RING, "version": ring.version}, document)


def _ring(document: Document) -> KeySet:
    return KeySet(
        keys=tuple(
            SigningKey(
                id=key["kid"],
                algorithm=key["algorithm"],
                state=KeyState(key["state"]),
                public_jwk=key["publicJwk"],
                sealed_private=key["private"],
                created_at=key["createdAt"],
                signs_from=key["signsFrom"],
                verifies_until=key["verifiesUntil"],
            )
            for key in document["keys"]
        ),
        version=document["version"],
    )


def _document(ring: KeySet) -> Document:
    return {
        "_id": RING,
        "keys": [
            {
                "kid": key.id,
                "algorithm": key.algorithm,
                "state": key.state.value,
                "publicJwk": key.public_jwk,
                "private": key.sealed_private,
                "createdAt": key.created_at,
                "signsFrom": key.signs_from,
                "verifiesUntil": key.verifies_until,
            }
            for key in ring.keys
        ],
        "version": ring.version,
    }
