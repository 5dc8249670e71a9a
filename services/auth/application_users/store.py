"""Where are the users of applications kept? In ``application_users``."""

from __future__ import annotations

from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from services.auth.accounts.models import Application
from services.auth.application_users.models import ApplicationUser
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.auth.errors import ApplicationUserNotFound, EmailTaken
from shared.mongo import Collection, Database, Document


class ApplicationUsers:
    """The users of applications; an address is one's alone in an application, which the index sees to."""

    COLLECTION: ClassVar = "application_users"
    INDEXES: ClassVar = [IndexModel([("applicationId", ASCENDING), ("email", ASCENDING)], unique=True)]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)

    async def get(self, id: str, application: Application) -> ApplicationUser:  # noqa: A002 -- the field's name
        """The user of an application with this id.

        Raises:
            ApplicationUserNotFound: there is none.
        """
        user = await self.find(id)
        if user is None or user.application_id != application.id:
            raise ApplicationUserNotFound
        return user

    async def find(self, id: str) -> ApplicationUser | None:  # noqa: A002 -- the field's name
        """The user with this id, if there is one."""
        document = await self._by_id.find_one(id)
        return None if document is None else _user(document)

    async def find_by_email(self, application_id: str, email: str) -> ApplicationUser | None:
        """The user of an application with this address, given in normal form."""
        document = await self._documents.find_one({"applicationId": {"$eq": application_id}, "email": {"$eq": email}})
        return None if document is None else _user(document)

    async def of_application(self, application_id: str, *, most: int) -> list[ApplicationUser]:
        """Some of an application's, ``most`` of them if there are so many."""
        cursor = self._documents.find({"applicationId": {"$eq": application_id}}).limit(most)
        return [_user(document) async for document in cursor]

    def add(self, user: ApplicationUser, work: Work) -> None:
        """Store a new one; refused with EmailTaken when another of the application has the address."""
        work.insert(self._documents, _document(user), taken=EmailTaken)

    def save(self, user: ApplicationUser, work: Work) -> None:
        """Store what changed; when another got the new address meanwhile, the handler runs again and finds them."""
        work.replace(self._documents, _document(user), version=user.version)

    def remove(self, user: ApplicationUser, work: Work) -> None:
        """Delete one."""
        work.delete(self._documents, user.id, version=user.version)


def _user(document: Document) -> ApplicationUser:
    return ApplicationUser(
        id=document["_id"],
        application_id=document["applicationId"],
        username=document["username"],
        email=document["email"],
        password_hash=document["passwordHash"],
        active=document["active"],
        generation=document["generation"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        ends_at=document["endsAt"],
        version=document["version"],
    )


def _document(user: ApplicationUser) -> Document:
    return {
        "_id": user.id,
        "applicationId": user.application_id,
        "username": user.username,
        "email": user.email,
        "passwordHash": user.password_hash,
        "active": user.active,
        "generation": user.generation,
        "createdAt": user.created_at,
        "updatedAt": user.updated_at,
        "endsAt": user.ends_at,
        "version": user.version,
    }
