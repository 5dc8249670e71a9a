"""Where are the owners of applications kept? In ``owners``."""

from __future__ import annotations

from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from services.auth.models.owners import Owner
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.auth.errors import EmailTaken, OwnerNotFound
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

    def hold(self, owner: Owner, work: Work) -> None:
        """See to it that the owner is still there when the work commits."""
        work.hold(self._documents, owner.id, version=owner.version)

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
