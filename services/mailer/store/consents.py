"""How are marketing consents kept?"""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel

from services.mailer.models.consents import Consent
from shared.bus.work import Work
from shared.messages.mailer.errors import AwaitingConsent
from shared.mongo import Database, Document


class Consents:
    """The collection ``marketing_consents``, a row for each user."""

    COLLECTION: Final = "marketing_consents"
    INDEXES: Final = (IndexModel([("userId", ASCENDING)], unique=True),)

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]

    async def get(self, user_id: str) -> Consent:
        """A user's consent.

        Raises:
            AwaitingConsent: they have never said.
        """
        consent = await self.find(user_id)
        if consent is None:
            raise AwaitingConsent
        return consent

    async def find(self, user_id: str) -> Consent | None:
        """A user's consent, if they have ever said."""
        document = await self._collection.find_one({"userId": {"$eq": user_id}})
        return None if document is None else _consent(document)

    def add(self, consent: Consent, work: Work) -> None:
        """Insert a user's first choice; if another one came first, the handler runs again."""
        work.insert(self._collection, _consent_document(consent))

    def save(self, consent: Consent, work: Work) -> None:
        """Replace a consent; if it moved meanwhile, the handler runs again."""
        work.replace(self._collection, _consent_document(consent), version=consent.version)

    def require_unchanged(self, consent: Consent, work: Work) -> None:
        """See to it that it is still the newest choice at the commit; otherwise the handler runs again."""
        work.require_version(self._collection, consent.id, version=consent.version)


def _consent_document(consent: Consent) -> Document:
    return {
        "_id": consent.id,
        "userId": consent.user_id,
        "level": consent.level,
        "source": consent.source,
        "createdAt": consent.created_at,
        "updatedAt": consent.updated_at,
        "version": consent.version,
    }


def _consent(document: Document) -> Consent:
    return Consent(
        id=document["_id"],
        user_id=document["userId"],
        level=document["level"],
        source=document["source"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )
