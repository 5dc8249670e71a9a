"""Store of the users of applications."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel

from services.auth.accounts.models import Application
from services.auth.application_users.models import ApplicationUser
from shared.documents import Rows
from shared.messages.auth.errors import ApplicationUserNotFound, EmailTaken


class ApplicationUsers(Rows[ApplicationUser], taken=EmailTaken):
    """The collection ``application_users``; a unique index refuses a second user of an address with ``EmailTaken``.

    If another user gets a changed address first, the handler runs again and finds that user.
    """

    COLLECTION: Final = "application_users"
    INDEXES: Final = (IndexModel([("applicationId", ASCENDING), ("email", ASCENDING)], unique=True),)

    async def get_of_application(self, user_id: str, application: Application) -> ApplicationUser:
        """The user of an application with this ID.

        Raises:
            ApplicationUserNotFound: there is none.
        """
        user = await self.find(user_id)
        if user is None or user.application_id != application.id:
            raise ApplicationUserNotFound
        return user

    async def find_by_email(self, application_id: str, email: str) -> ApplicationUser | None:
        """The user of an application with this address in normal form, if there is one."""
        return await self._one({"applicationId": {"$eq": application_id}, "email": {"$eq": email}})

    async def some_of_application(self, application_id: str, *, limit: int) -> list[ApplicationUser]:
        """Up to ``limit`` users of an application."""
        return await self._all(self._collection.find({"applicationId": {"$eq": application_id}}).limit(limit))
