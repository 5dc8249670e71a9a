"""MongoDB stores of marketing consents, their history, and the state of their sync to the audience provider."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel

from services.mailer.consents.models import AudienceMember, Consent, ConsentChange
from shared.bus.work import Work
from shared.documents import Rows, document_of
from shared.messages.mailer.errors import AwaitingConsent
from shared.mongo import Database


class Consents(Rows[Consent]):
    """The collection ``marketing_consents``: one document per user."""

    COLLECTION: Final = "marketing_consents"
    INDEXES: Final = (IndexModel([("userId", ASCENDING)], unique=True),)

    async def get(self, user_id: str) -> Consent:
        """Return a user's consent.

        Raises:
            AwaitingConsent: the user has never chosen.
        """
        consent = await self.find(user_id)
        if consent is None:
            raise AwaitingConsent
        return consent

    async def find(self, user_id: str) -> Consent | None:
        """Return a user's consent, or None if the user has never chosen."""
        return await self._one({"userId": {"$eq": user_id}})


class ConsentChanges:
    """The collection ``marketing_consent_changes``: one document per choice, never changed."""

    COLLECTION: Final = "marketing_consent_changes"
    INDEXES: Final = (IndexModel([("userId", ASCENDING), ("number", ASCENDING)], unique=True),)

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]

    def add(self, change: ConsentChange, work: Work) -> None:
        """Insert a choice; if the user already has a choice with its number, the handler runs again."""
        work.insert(self._collection, document_of(change))


class AudienceMembers(Rows[AudienceMember]):
    """The collection ``audience_members``: one document per user whose consent is synced to the audience provider."""

    COLLECTION: Final = "audience_members"
    INDEXES: Final = ()
