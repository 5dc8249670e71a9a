"""Who has applications?"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

from services.auth.accounts import api_keys
from services.auth.users.models import normal_email
from shared.messages.auth.errors import ApplicationEnded, FieldRefused, InvalidEmail, InvalidToken, PasswordRequired

DELETION_TYPE: Final = "deletion+jwt"
"""The ``typ`` of deletion tokens: no other token passes for one."""
DELETION_AUDIENCE: Final = "owners"
"""The ``aud`` of deletion tokens: this part of auth, which alone reads them."""
DELETION_LIFE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Somebody who has applications.

    Attributes:
        email: in normal form; one owner's alone.
        password_hash: as argon2 writes it, parameters included.
        generation: counts the passwords so far; a deletion token is good only under the one it was made under.
    """

    id: str
    firstname: str
    lastname: str
    email: str
    password_hash: str = field(repr=False)
    generation: int
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def register(
        cls,
        *,
        id: str,  # noqa: A002 -- the field's name
        firstname: str,
        lastname: str,
        email: str,
        password_hash: str,
        at: datetime,
    ) -> Self:
        """A new owner."""
        return cls(
            id=id,
            firstname=firstname,
            lastname=lastname,
            email=email,
            password_hash=password_hash,
            generation=1,
            created_at=at,
            updated_at=at,
        )

    def update(self, *, firstname: str, lastname: str, email: str, at: datetime) -> Self:
        """The same under other names and another address."""
        return replace(self, firstname=firstname, lastname=lastname, email=email, updated_at=at)

    def change_password(self, password_hash: str, *, at: datetime) -> Self:
        """The same with another password; what was signed under the one before is good no longer."""
        return replace(self, password_hash=password_hash, generation=self.generation + 1, updated_at=at)

    def hash_again(self, password_hash: str) -> Self:
        """The same with the same password, hashed with today's parameters."""
        return replace(self, password_hash=password_hash)

    def deletion_claims(self, *, id: str, at: datetime) -> dict[str, Any]:  # noqa: A002 -- the claim ``jti``
        """What a token says that permits the deletion of this owner."""
        return {
            "jti": id,
            "sub": self.id,
            "aud": DELETION_AUDIENCE,
            "gen": self.generation,
            "iat": int(at.timestamp()),
            "exp": int((at + DELETION_LIFE).timestamp()),
        }

    def must_permit_deletion(self, claims: dict[str, Any]) -> None:
        """Let whoever shows a deletion token with these claims go on.

        Raises:
            InvalidToken: it was made for another owner, or under a password that is no longer the one.
        """
        if (claims["sub"], claims.get("gen")) != (self.id, self.generation):
            raise InvalidToken


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


_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def account_email(text: str, *, test_domains: bool) -> str:
    """As ``normal_email``, for a field that is called ``email``.

    Raises:
        FieldRefused: it can't receive mail.
    """
    try:
        return normal_email(text, test_domains=test_domains)
    except InvalidEmail:
        raise FieldRefused("email", "not an address that can receive mail") from None


def uuid_text(text: str, field: str) -> str:
    """A UUID as RFC 9562 section 4 writes it, in lower case.

    Raises:
        FieldRefused: it is none.
    """
    lower = text.lower()
    if not _UUID.fullmatch(lower):
        raise FieldRefused(field, "not a UUID")
    return lower
