"""Where are the owners of applications kept? In ``owners``."""

from __future__ import annotations

from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from services.auth.accounts import api_keys
from services.auth.accounts.models import Application, Owner
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.auth.errors import ApplicationNotFound, AppnameTaken, EmailTaken, OwnerNotFound
from shared.mongo import Collection, Database, Document


class Owners:
    """The owners; an address is one's alone, which the index sees to."""

    COLLECTION: ClassVar = "owners"
    INDEXES: ClassVar = [IndexModel([("email", ASCENDING)], unique=True)]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)
        self._by_email = BatchLoader(self._documents, "email")

    async def get(self, id: str) -> Owner:  # noqa: A002 -- the field's name
        """The owner with this id.

        Raises:
            OwnerNotFound: there is none.
        """
        owner = await self.find(id)
        if owner is None:
            raise OwnerNotFound
        return owner

    async def find(self, id: str) -> Owner | None:  # noqa: A002 -- the field's name
        """The owner with this id, if there is one."""
        document = await self._by_id.find_one(id)
        return None if document is None else _owner(document)

    async def find_by_email(self, email: str) -> Owner | None:
        """The owner with this address, given in normal form."""
        document = await self._by_email.find_one(email)
        return None if document is None else _owner(document)

    def add(self, owner: Owner, work: Work) -> None:
        """Store a new one; refused with EmailTaken when another has the address."""
        work.insert(self._documents, _document(owner), taken=EmailTaken)

    def save(self, owner: Owner, work: Work) -> None:
        """Store what changed; when another got the new address meanwhile, the handler runs again and finds them."""
        work.replace(self._documents, _document(owner), version=owner.version)

    def require_unchanged(self, owner: Owner, work: Work) -> None:
        """See to it that the owner is still there when the work commits."""
        work.require_version(self._documents, owner.id, version=owner.version)

    def remove(self, owner: Owner, work: Work) -> None:
        """Delete one."""
        work.delete(self._documents, owner.id, version=owner.version)


def _owner(document: Document) -> Owner:
    return Owner(
        id=document["_id"],
        firstname=document["firstName"],
        lastname=document["lastName"],
        email=document["email"],
        password_hash=document["passwordHash"],
        generation=document["generation"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        version=document["version"],
    )


def _document(owner: Owner) -> Document:
    return {
        "_id": owner.id,
        "firstName": owner.firstname,
        "lastName": owner.lastname,
        "email": owner.email,
        "passwordHash": owner.password_hash,
        "generation": owner.generation,
        "createdAt": owner.created_at,
        "updatedAt": owner.updated_at,
        "version": owner.version,
    }


class Applications:
    """The applications; a name is one's alone among those of an owner, which the index sees to."""

    COLLECTION: ClassVar = "applications"
    INDEXES: ClassVar = [IndexModel([("ownerId", ASCENDING), ("name", ASCENDING)], unique=True)]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)

    async def get(self, api_key: str) -> Application:
        """The application with this API key.

        Raises:
            MalformedApiKey: none can have it; nothing was looked up.
            ApplicationNotFound: none has it.
        """
        application = await self.find_by_key(api_key)
        if application is None:
            raise ApplicationNotFound
        return application

    async def find_by_key(self, api_key: str) -> Application | None:
        """The application with this API key, if there is one.

        Raises:
            MalformedApiKey: none can have it; nothing was looked up.
        """
        return await self.find(str(api_keys.id_of(api_key)))

    async def find(self, id: str) -> Application | None:  # noqa: A002 -- the field's name
        """The application with this id, if there is one."""
        document = await self._by_id.find_one(id)
        return None if document is None else _application(document)

    async def of_owner(self, owner_id: str, *, most: int) -> list[Application]:
        """Some of an owner's, ``most`` of them if there are so many."""
        cursor = self._documents.find({"ownerId": {"$eq": owner_id}}).limit(most)
        return [_application(document) async for document in cursor]

    def add(self, application: Application, work: Work) -> None:
        """Store a new one; refused with AppnameTaken when the owner has another of this name."""
        work.insert(self._documents, _application_document(application), taken=AppnameTaken)

    def require_unchanged(self, application: Application, work: Work) -> None:
        """See to it that the application is still there when the work commits."""
        work.require_version(self._documents, application.id, version=application.version)

    def remove(self, application: Application, work: Work) -> None:
        """Delete one."""
        work.delete(self._documents, application.id, version=application.version)


def _application(document: Document) -> Application:
    return Application(
        id=document["_id"],
        owner_id=document["ownerId"],
        name=document["name"],
        passwordless=document["passwordless"],
        created_at=document["createdAt"],
        ends_at=document["endsAt"],
        version=document["version"],
    )


def _application_document(application: Application) -> Document:
    return {
        "_id": application.id,
        "ownerId": application.owner_id,
        "name": application.name,
        "passwordless": application.passwordless,
        "createdAt": application.created_at,
        "endsAt": application.ends_at,
        "version": application.version,
    }
