"""Where are people kept, and the addresses they are known by? In ``users`` and ``identifiers``."""

from __future__ import annotations

from typing import ClassVar, get_args

from pymongo import ASCENDING, IndexModel

from services.auth.users.models import Identifier, IdentifierType, User
from shared.batch_loader import BatchLoader
from shared.bus.work import Work
from shared.messages.auth.errors import UserNotFound
from shared.mongo import Collection, Database, Document


class Users:
    """People."""

    COLLECTION: ClassVar = "users"

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._by_id = BatchLoader(self._documents)

    async def get(self, id: str) -> User:  # noqa: A002 -- the field's name
        """The user with this id.

        Raises:
            UserNotFound: no user has this ID.
        """
        document = await self._by_id.find_one(id)
        if document is None:
            raise UserNotFound
        return User(
            id=document["_id"],
            created_at=document["createdAt"],
            # Those who came before there were names have no such fields.
            first_name=document.get("firstName", ""),
            last_name=document.get("lastName", ""),
            version=document["version"],
        )

    def add(self, user: User, work: Work) -> None:
        """Store a new user."""
        work.insert(self._documents, _user_document(user))

    def save(self, user: User, work: Work) -> None:
        """Store what changed; if it moved meanwhile, the handler runs again."""
        work.replace(self._documents, _user_document(user), version=user.version)

    def require_unchanged(self, user: User, work: Work) -> None:
        """See to it that the user is still there when the work commits."""
        work.require_version(self._documents, user.id, version=user.version)

    def remove(self, user: User, work: Work) -> None:
        """Keep nothing of one."""
        work.delete(self._documents, user.id, version=user.version)


class Identifiers:
    """The addresses and numbers of people; each belongs to one of them at a time, which the index sees to."""

    COLLECTION: ClassVar = "identifiers"
    INDEXES: ClassVar = [
        IndexModel(
            [("identifierValue", ASCENDING), ("identifierType", ASCENDING)],
            unique=True,
            partialFilterExpression={"removedAt": None},
        ),
        IndexModel([("userId", ASCENDING)]),
    ]

    def __init__(self, database: Database) -> None:
        self._documents: Collection = database[self.COLLECTION]
        self._of_user = BatchLoader(self._documents, "userId")
        # Each repeats the unique index's filter, or that can't serve.
        self._by_value = {
            kind: BatchLoader(self._documents, "identifierValue", {"identifierType": kind, "removedAt": None})
            for kind in get_args(IdentifierType)
        }

    async def find(self, identifier_type: IdentifierType, identifier_value: str) -> Identifier | None:
        """Whose this address or number is now, given in normal form."""
        document = await self._by_value[identifier_type].find_one(identifier_value)
        return None if document is None else _identifier(document)

    async def of_user(self, user_id: str) -> list[Identifier]:
        """All of a user's, removed ones included, oldest first."""
        documents = await self._of_user.find(user_id)
        return sorted(map(_identifier, documents), key=lambda identifier: identifier.id)

    def add(self, identifier: Identifier, work: Work) -> None:
        """Store a new one; when somebody else has it by then, the handler runs again and finds them."""
        work.insert(self._documents, _document(identifier))

    def save(self, identifier: Identifier, work: Work) -> None:
        """Store what changed."""
        work.replace(self._documents, _document(identifier), version=identifier.version)

    def require_unchanged(self, identifier: Identifier, work: Work) -> None:
        """See to it that it is still its user's when the work commits."""
        work.require_version(self._documents, identifier.id, version=identifier.version)

    def remove(self, identifier: Identifier, work: Work) -> None:
        """Keep nothing of one."""
        work.delete(self._documents, identifier.id, version=identifier.version)


def _user_document(user: User) -> Document:
    return {
        "_id": user.id,
        "createdAt": user.created_at,
        "firstName": user.first_name,
        "lastName": user.last_name,
        "version": user.version,
    }


def _identifier(document: Document) -> Identifier:
    return Identifier(
        id=document["_id"],
        user_id=document["userId"],
        identifier_type=document["identifierType"],
        identifier_value=document["identifierValue"],
        created_at=document["createdAt"],
        updated_at=document["updatedAt"],
        verified_at=document["verifiedAt"],
        removed_at=document["removedAt"],
        version=document["version"],
    )


def _document(identifier: Identifier) -> Document:
    return {
        "_id": identifier.id,
        "userId": identifier.user_id,
        "identifierType": identifier.identifier_type,
        "identifierValue": identifier.identifier_value,
        "createdAt": identifier.created_at,
        "updatedAt": identifier.updated_at,
        "verifiedAt": identifier.verified_at,
        "removedAt": identifier.removed_at,
        "version": identifier.version,
    }
