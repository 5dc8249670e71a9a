"""What is an application of somebody else's, whose users we keep?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from services.auth.models import api_keys
from shared.messages.auth.errors import ApplicationEnded, PasswordRequired


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application.

    Attributes:
        id: a UUID. The API key is made from it, and it from the key, so it is as secret as that.
        owner_id: whose it is.
        name: different from the names of the owner's others.
        passwordless: whether a user's id and the API key are enough to log in.
        ends_at: from when on nobody can sign up or log in.
    """

    id: str
    owner_id: str
    name: str
    passwordless: bool
    created_at: datetime
    ends_at: datetime
    version: int = 1

    @classmethod
    def create(cls, *, id: str, owner_id: str, name: str, passwordless: bool, at: datetime) -> Self:  # noqa: A002
        """A new application, for a year."""
        return cls(
            id=id, owner_id=owner_id, name=name, passwordless=passwordless, created_at=at, ends_at=a_year_after(at)
        )

    @property
    def api_key(self) -> str:
        """What its back end shows."""
        return api_keys.api_key(UUID(self.id))

    def must_be_current(self, *, at: datetime) -> None:
        """Let its users sign up and log in.

        Raises:
            ApplicationEnded: its time is over.
        """
        if at >= self.ends_at:
            raise ApplicationEnded

    def must_be_passwordless(self) -> None:
        """Let its users log in without a password.

        Raises:
            PasswordRequired: it was not made for that.
        """
        if not self.passwordless:
            raise PasswordRequired


def a_year_after(at: datetime) -> datetime:
    """The same time a year later; after 29 February that is 1 March, so that no year is short of a day."""
    try:
        return at.replace(year=at.year + 1)
    except ValueError:
        return at.replace(year=at.year + 1, month=3, day=1)
