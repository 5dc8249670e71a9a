"""Stores of users and their identifiers."""

from __future__ import annotations

import asyncio
from typing import Final, get_args

from pymongo import ASCENDING, IndexModel

from services.auth.users.models import Identifier, IdentifierType, User, spellings
from shared.batch_loader import BatchLoader
from shared.documents import Rows
from shared.messages.auth.errors import UserNotFound
from shared.mongo import Database


class Users(Rows[User], missing=UserNotFound):
    """The collection ``users``."""

    COLLECTION: Final = "users"
    INDEXES: Final = ()


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
        found = await asyncio.gather(*map(self._by_value[identifier_type].find_one, values))
        return self._read_or_none(next(filter(None, found), None))

    async def of_user(self, user_id: str) -> list[Identifier]:
        """All identifiers of a user, including removed ones, oldest first."""
        documents = await self._of_user.find(user_id)
        return sorted(map(self._read, documents), key=lambda identifier: identifier.id)
