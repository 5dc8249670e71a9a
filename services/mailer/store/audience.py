"""How is it kept what the audience provider was told?"""

from __future__ import annotations

from typing import Final

from services.mailer.models.audience import AudienceMember
from shared.bus.work import Work
from shared.mongo import Database, Document


class AudienceMembers:
    """The collection ``audience_members``, a row for each user of whom the provider was told, or was to be."""

    COLLECTION: Final = "audience_members"

    def __init__(self, database: Database) -> None:
        self._collection = database[self.COLLECTION]

    async def find(self, user_id: str) -> AudienceMember | None:
        """What the provider was told of a user, if it was."""
        document = await self._collection.find_one({"_id": {"$eq": user_id}})
        return None if document is None else _member(document)

    def add(self, member: AudienceMember, work: Work) -> None:
        """Insert a member; if there is one already, the handler runs again."""
        work.insert(self._collection, _document(member))

    def save(self, member: AudienceMember, work: Work) -> None:
        """Replace a member; if it moved meanwhile, the handler runs again."""
        work.replace(self._collection, _document(member), version=member.version)


def _document(member: AudienceMember) -> Document:
    return {
        "_id": member.user_id,
        "state": member.state,
        "level": member.level,
        "consentVersion": member.consent_version,
        "attempts": member.attempts,
        "reason": member.reason,
        "createdAt": member.created_at,
        "updatedAt": member.updated_at,
        "version": member.version,
    }


def _member(document: Document) -> AudienceMember:
    return AudienceMember(
        user_id=document["_id"],
        state=document["state"],
        level=document["level"],
        consent_version=document["consentVersion"],
        attempts=document["attempts"],
        reason=document["reason"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )
