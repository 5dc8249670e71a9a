"""How is it kept who has consented to what, and when? A row for each choice, and none is ever changed."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel

from services.mailer.models.consents import ConsentChange
from shared.bus.work import Work
from shared.mongo import Database


class ConsentChanges:
    """The collection ``marketing_consent_changes``."""

    COLLECTION: Final = "marketing_consent_changes"
    INDEXES: Final = (IndexModel([("userId", ASCENDING), ("number", ASCENDING)], unique=True),)

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]

    def add(self, change: ConsentChange, work: Work) -> None:
        """Insert a choice; if another one has its number, the handler runs again."""
        work.insert(
            self._collection,
            {
                "_id": change.id,
                "userId": change.user_id,
                "number": change.number,
                "level": change.level,
                "source": change.source,
                "caller": {"kind": change.caller_kind, "userId": change.caller_user_id},
                "createdAt": change.created_at,
            },
        )
