"""Where are codes by text kept? In ``phone_codes``, code and nonce only as hashes."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar, Final

from pymongo import ASCENDING, IndexModel

from services.auth.phone.models import PhoneCode
from services.auth.tokens.credentials import hash_key
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.mongo import Collection, Database, Document

KEPT: Final = timedelta(hours=1)
"""Since MongoDB's clock may be ahead of ours. A code that is gone is refused like one whose time is over."""


class PhoneCodes:
    """Codes that were texted."""

    COLLECTION: ClassVar = "phone_codes"
    INDEXES: ClassVar = [
        IndexModel([("nonce", ASCENDING)], unique=True),
        IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=int(KEPT.total_seconds())),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_nonce = BatchLoader(self._documents, "nonce")

    async def find(self, nonce: str) -> PhoneCode | None:
        """The one that was ordered with this nonce."""
        document = await self._by_nonce.find_one(hash_key(nonce))
        return None if document is None else _phone_code(document)

    def add(self, phone_code: PhoneCode, work: Work) -> None:
        """Store a new one."""
        work.insert(self._documents, _document(phone_code))

    def save(self, phone_code: PhoneCode, work: Work) -> None:
        """Store what changed; if it moved meanwhile, the handler runs again."""
        work.replace(self._documents, _document(phone_code), version=phone_code.version)


def _phone_code(document: Document) -> PhoneCode:
    return PhoneCode(
        id=document["_id"],
        nonce_hash=document["nonce"],
        code_hash=document["code"],
        phone_number=document["phoneNumber"],
        created_at=document["createdAt"],
        expires_at=document["expiresAt"],
        used_at=document["usedAt"],
        wrong_codes=document["wrongCodes"],
        version=document["version"],
    )


def _document(phone_code: PhoneCode) -> Document:
    return {
        "_id": phone_code.id,
        "nonce": phone_code.nonce_hash,
        "code": phone_code.code_hash,
        "phoneNumber": phone_code.phone_number,
        "createdAt": phone_code.created_at,
        "expiresAt": phone_code.expires_at,
        "usedAt": phone_code.used_at,
        "wrongCodes": phone_code.wrong_codes,
        "version": phone_code.version,
    }
