"""Stores of users and their identifiers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, get_args

from pymongo import ASCENDING, IndexModel

from services.auth.users.models import Identifier, IdentifierType, User, spellings
from shared.batch_loader import BatchLoader, Found, by_value
from shared.documents import Rows
from shared.errors import InvalidCursor
from shared.messages.auth.errors import UserNotFound
from shared.messages.auth.users import ListUsers
from shared.mongo import Database, Document
from shared.paging import NewestFirst


class Users(Rows[User], missing=UserNotFound):
    """The collection ``users``."""

    COLLECTION: Final = "users"
    _ORDER: Final = NewestFirst("createdAt")
    INDEXES: Final = (_ORDER.index(),)

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._identifiers = Identifiers(database)
        self._with_identifiers = _WithIdentifiers(self._collection)

    async def with_identifiers(self, user_id: str) -> tuple[User, list[Identifier]]:
        """The user with this ID, and all identifiers, including removed ones, oldest first.

        Raises:
            UserNotFound: no user has this ID.
        """
        documents = await self._with_identifiers.find(user_id)
        user = next((self._read(document) for document in documents if document["_id"] == user_id), None)
        if user is None:
            raise UserNotFound
        return user, self._identifiers.oldest_first(document for document in documents if "userId" in document)

    async def page(self, query: ListUsers) -> list[User]:
        """The users of a page, newest first, and one more if there are more.

        Raises:
            InvalidCursor: no page ended with the query's cursor.
        """
        found = await self._ORDER.page(
            self._collection, {}, limit=query.limit, cursor=query.cursor, since=query.since, until=query.until
        )
        return list(map(self._read, found))

    async def of_ids(self, user_ids: Sequence[str]) -> dict[str, User]:
        """The users with these IDs, by ID; those that do not exist are missing."""
        found = await self._all(self._collection.find({"_id": {"$in": list(user_ids)}}))
        return {user.id: user for user in found}


class Identifiers(Rows[Identifier]):
    """The collection ``identifiers``; a unique index assigns each address and number to one user at a time.

    If another work adds the same identifier first, the handler runs again and finds it.
    """

    COLLECTION: Final = "identifiers"
    INDEXES: Final = (
        IndexModel(
            [("identifierValue", ASCENDING), ("identifierType", ASCENDING)],
            unique=True,
            partialFilterExpression={"removedAt": None},
        ),
        IndexModel([("userId", ASCENDING)]),
    )

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._of_user = BatchLoader(self._collection, "userId")
        # The queries repeat the filter of the unique index; without it MongoDB could not use that index.
        self._by_value = {
            kind: BatchLoader(self._collection, "identifierValue", {"identifierType": kind, "removedAt": None})
            for kind in get_args(IdentifierType)
        }

    async def find_by_value(self, identifier_type: IdentifierType, identifier_value: str) -> Identifier | None:
        """The identifier with this value in normal form, if a user has it now.

        A number is also found in its former spellings; the present one is preferred.
        """
        values = spellings(identifier_type, identifier_value)
        return self._read_or_none(await self._by_value[identifier_type].find_first(*values))

    async def containing(self, part: str, *, limit: int, cursor: str | None) -> list[Identifier]:
        """The identifiers that users have now and that contain a text, in the order of their values, and one more.

        MongoDB reads the index of values up to the last match, never the documents in between.

        Args:
            part: in lower case.
            limit: identifiers on the page.
            cursor: ID of the last identifier of the previous page, which no text of an address is in; None for the
                first page.

        Raises:
            InvalidCursor: there is no such identifier any more.
        """
        values: Document = {"$regex": re.escape(part)}
        if cursor is not None:
            last = await self.find(cursor)
            if last is None:
                raise InvalidCursor
            values["$gt"] = last.identifier_value
        found = self._collection.find({"identifierValue": values, "removedAt": None})
        return await self._all(found.sort([("identifierValue", ASCENDING)]).limit(limit + 1))

    async def of_users(self, user_ids: Sequence[str]) -> dict[str, list[Identifier]]:
        """All identifiers of each of these users, including removed ones, oldest first."""
        by_user: dict[str, list[Identifier]] = {user_id: [] for user_id in user_ids}
        for identifier in await self._all(self._collection.find({"userId": {"$in": list(user_ids)}})):
            by_user[identifier.user_id].append(identifier)
        return {user_id: sorted(each, key=lambda identifier: identifier.id) for user_id, each in by_user.items()}

    async def of_user(self, user_id: str) -> list[Identifier]:
        """All identifiers of a user, including removed ones, oldest first."""
        return self.oldest_first(await self._of_user.find(user_id))

    def oldest_first(self, documents: Iterable[Document]) -> list[Identifier]:
        """The identifiers in these documents, oldest first."""
        return sorted(map(self._read, documents), key=lambda identifier: identifier.id)


class _WithIdentifiers(BatchLoader):
    """Finds the documents of users together with those of their identifiers, which costs little more than one query."""

    async def _find(self, values: set[Any]) -> Found:
        users = list(values)
        identifiers = {"coll": Identifiers.COLLECTION, "pipeline": [{"$match": {"userId": {"$in": users}}}]}
        found = await self._collection.aggregate([{"$match": {"_id": {"$in": users}}}, {"$unionWith": identifiers}])
        return by_value([(document.get("userId", document["_id"]), document) async for document in found])
