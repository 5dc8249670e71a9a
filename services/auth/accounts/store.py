"""Stores of owners and their applications."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel

from services.auth.accounts import api_keys
from services.auth.accounts.models import Application, Owner
from shared.batch_loader import BatchLoader
from shared.documents import Rows
from shared.messages.auth.errors import ApplicationNotFound, AppnameTaken, EmailTaken, OwnerNotFound
from shared.mongo import Database


class Owners(Rows[Owner], taken=EmailTaken, missing=OwnerNotFound):
    """The collection ``owners``; a unique index on the address refuses a second owner with ``EmailTaken``.

    If another owner gets a changed address first, the handler runs again and finds that owner.
    """

    COLLECTION: Final = "owners"
    INDEXES: Final = (IndexModel([("email", ASCENDING)], unique=True),)

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._by_email = BatchLoader(self._collection, "email")

    async def find_by_email(self, email: str) -> Owner | None:
        """The owner with this address in normal form, if there is one."""
        return self._read_or_none(await self._by_email.find_one(email))


class Applications(Rows[Application], taken=AppnameTaken):
    """The collection ``applications``; a unique index refuses a second name of one owner with ``AppnameTaken``."""

    COLLECTION: Final = "applications"
    INDEXES: Final = (IndexModel([("ownerId", ASCENDING), ("name", ASCENDING)], unique=True),)

    async def get_by_key(self, api_key: str) -> Application:
        """The application with this API key.

        Raises:
            MalformedApiKey: no application can have it; MongoDB is not queried.
            ApplicationNotFound: no application has it.
        """
        application = await self.find_by_key(api_key)
        if application is None:
            raise ApplicationNotFound
        return application

    async def find_by_key(self, api_key: str) -> Application | None:
        """The application with this API key, if there is one.

        Raises:
            MalformedApiKey: no application can have it; MongoDB is not queried.
        """
        return await self.find(str(api_keys.id_of(api_key)))

    async def some_of_owner(self, owner_id: str, *, limit: int) -> list[Application]:
        """Up to ``limit`` applications of an owner."""
        return await self._all(self._collection.find({"ownerId": {"$eq": owner_id}}).limit(limit))
