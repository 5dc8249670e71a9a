"""Owners and their applications, and the fields of the accounts API."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID

from shared.email_addresses import normal_email
from shared.messages.auth.errors import ApplicationEnded, FieldRefused, InvalidEmail, NotLoggedIn, PasswordRequired

DELETION_TYPE: Final = "deletion+jwt"
"""Header ``typ`` of deletion tokens; no other kind of token is accepted as one."""
OWNERS_AUDIENCE: Final = "owners"
"""Claim ``aud`` of deletion tokens and of owners' tokens, which only auth reads."""
OWNER_TOKEN_TYPE: Final = "owner+jwt"  # noqa: S105 -- the header ``typ``
"""Header ``typ`` of owners' tokens; no other kind of token is accepted as one."""
OWNER_TOKEN_LIFETIME: Final = timedelta(hours=1)
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A person who owns applications.

    The email address, in normal form, is unique among owners. ``generation`` is the number of passwords so far; tokens
    and deletion tokens are valid only in the generation that they were issued in, deletion tokens without an expiry.
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
        """Change the password, which invalidates earlier tokens and deletion tokens."""
        return replace(self, password_hash=password_hash, generation=self.generation + 1, updated_at=at)

    def reset_password(self, password_hash: str, *, at: datetime) -> Self:
        """Change the password after proof that the owner reads the mailbox."""
        return self.change_password(password_hash, at=at)

    @property
    def deletion_claims(self) -> dict[str, Any]:
        """Claims of the token that authorizes the deletion of this owner."""
        return {"sub": self.id, "aud": OWNERS_AUDIENCE, "gen": self.generation}

    def token_claims(self, *, id: str, at: datetime) -> dict[str, Any]:  # noqa: A002 -- the claim ``jti``
        """Claims of a token of this owner."""
        times = {"iat": int(at.timestamp()), "exp": int((at + OWNER_TOKEN_LIFETIME).timestamp())}
        return {**self.deletion_claims, "jti": id, **times}

    def must_be_logged_in(self, claims: dict[str, Any]) -> None:
        """Check that a token with these claims is one of this owner, since the last change of the password.

        Raises:
            NotLoggedIn: it is not.
        """
        if (claims["sub"], claims.get("gen")) != (self.id, self.generation):
            raise NotLoggedIn


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application of an owner, whose users auth stores.

    Attributes:
        id: UUID, the claim ``aud`` of its users' tokens. Neither the API key nor its UUID can be computed from it.
        key_hash: keyed hash of the API key. Empty in documents of earlier releases, whose ID is the key's UUID; see
            ``api_key_upgrade``.
        name: unique among the owner's applications.
        passwordless: whether a user's ID and the API key are enough to log in.
        verified_only: whether only users with a proven address can log in.
        ends_at: when sign-ups and logins end.
    """

    id: str
    owner_id: str
    key_hash: str = field(default="", repr=False)
    name: str
    passwordless: bool
    verified_only: bool = False
    created_at: datetime
    ends_at: datetime
    version: int = 1

    def update(self, *, passwordless: bool | None, verified_only: bool | None) -> Self:
        """Change the given settings; None leaves one unchanged."""
        return replace(
            self,
            passwordless=self.passwordless if passwordless is None else passwordless,
            verified_only=self.verified_only if verified_only is None else verified_only,
        )

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


def upgraded_id(former_id: str) -> str:
    """The ID of an application of an earlier release, whose former ID was the UUID of its API key.

    The same one in every instance and after a crash; also for tokens, whose ``aud`` is the former ID. That has 122
    random bits, so a plain hash does not reveal it.
    """
    digest = hashlib.sha256(b"application " + former_id.encode()).digest()
    return str(UUID(bytes=digest[:16], version=4))


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
