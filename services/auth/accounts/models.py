"""Owners and their applications, and the fields of the accounts API."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from services.auth.accounts import api_keys
from shared.email_addresses import normal_email
from shared.messages.auth.errors import ApplicationEnded, FieldRefused, InvalidEmail, PasswordRequired

DELETION_TYPE: Final = "deletion+jwt"
"""Header ``typ`` of deletion tokens; no other kind of token is accepted as one."""
DELETION_AUDIENCE: Final = "owners"
"""Claim ``aud`` of deletion tokens, which only auth reads."""
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A person who owns applications.

    The email address, in normal form, is unique among owners. ``generation`` is the number of passwords so far; a
    deletion token is valid only in the generation that it was issued in, without an expiry.
    """

    id: str
    first_name: str
    last_name: str
    email: str
    password_hash: str = field(repr=False)
    generation: int = 1
    created_at: datetime
    updated_at: datetime
    version: int = 1

    def update(self, *, first_name: str, last_name: str, email: str, at: datetime) -> Self:
        """Change names and address."""
        return replace(self, first_name=first_name, last_name=last_name, email=email, updated_at=at)

    def change_password(self, password_hash: str, *, at: datetime) -> Self:
        """Change the password, which invalidates earlier deletion tokens."""
        return replace(self, password_hash=password_hash, generation=self.generation + 1, updated_at=at)

    @property
    def deletion_claims(self) -> dict[str, Any]:
        """Claims of the token that authorizes the deletion of this owner."""
        return {"sub": self.id, "aud": DELETION_AUDIENCE, "gen": self.generation}


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application of an owner, whose users auth stores.

    Attributes:
        id: UUID. It is as secret as the API key, since each can be computed from the other.
        name: unique among the owner's applications.
        passwordless: whether a user's ID and the API key are enough to log in.
        ends_at: when sign-ups and logins end.
    """

    id: str
    owner_id: str
    name: str
    passwordless: bool
    created_at: datetime
    ends_at: datetime
    version: int = 1

    @property
    def api_key(self) -> str:
        """API key of the application's back end."""
        return api_keys.api_key(UUID(self.id))

    def must_be_current(self, *, at: datetime) -> None:
        """Check that users can sign up and log in.

        Raises:
            ApplicationEnded: ``ends_at`` has been reached.
        """
        if at >= self.ends_at:
            raise ApplicationEnded

    def must_be_passwordless(self) -> None:
        """Check that users can log in without a password.

        Raises:
            PasswordRequired: the application was created with passwords.
        """
        if not self.passwordless:
            raise PasswordRequired


def a_year_after(at: datetime) -> datetime:
    """The same time a year later; 1 March after 29 February, so that no year is a day short."""
    try:
        return at.replace(year=at.year + 1)
    except ValueError:
        return at.replace(year=at.year + 1, month=3, day=1)


def account_email(text: str, *, test_domains: bool) -> str:
    """Return the normal form of the field ``email``; see ``normal_email``.

    Raises:
        FieldRefused: the address can't receive mail.
    """
    try:
        return normal_email(text, test_domains=test_domains)
    except InvalidEmail:
        raise FieldRefused("email", "not an address that can receive mail") from None


def uuid_text(text: str, field_name: str) -> str:
    """Return a UUID in the text format of RFC 9562 section 4, in lower case.

    Raises:
        FieldRefused: the text is not a UUID.
    """
    lower = text.lower()
    if not _UUID.fullmatch(lower):
        raise FieldRefused(field_name, "not a UUID")
    return lower
