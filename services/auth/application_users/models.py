"""Who has signed up to an application, and who may log in there?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from services.auth.accounts.models import Application, a_year_after
from shared.errors import Refusal
from shared.messages.auth.errors import ApplicationUserEnded, ApplicationUserNotActive, NotLoggedIn

TOKEN_TYPE: Final = "application+jwt"  # noqa: S105 -- the header ``typ``
"""The ``typ`` of what a user of an application shows: no access token of Nest's own users passes for it."""
TOKEN_LIFE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationUser:
    """A user of an application.

    Attributes:
        email: in normal form; in one application one user's alone.
        password_hash: as argon2 writes it, parameters included.
        active: whether they may log in.
        generation: counts what ended all tokens so far; a token is good only under the one it was made under.
        ends_at: from when on they can't log in.
    """

    id: str
    application_id: str
    username: str
    email: str
    password_hash: str = field(repr=False)
    active: bool
    generation: int
    created_at: datetime
    updated_at: datetime
    ends_at: datetime
    version: int = 1

    @classmethod
    def sign_up(
        cls,
        application: Application,
        *,
        id: str,  # noqa: A002 -- the field's name
        username: str,
        email: str,
        password_hash: str,
        at: datetime,
    ) -> Self:
        """A new user, for a year."""
        return cls(
            id=id,
            application_id=application.id,
            username=username,
            email=email,
            password_hash=password_hash,
            active=True,
            generation=1,
            created_at=at,
            updated_at=at,
            ends_at=a_year_after(at),
        )

    def must_be_allowed_in(self, *, at: datetime) -> None:
        """Let them log in.

        Raises:
            ApplicationUserNotActive: deactivated.
            ApplicationUserEnded: their time is over.
        """
        if not self.active:
            raise ApplicationUserNotActive
        if at >= self.ends_at:
            raise ApplicationUserEnded

    def token_claims(self, *, id: str, at: datetime) -> dict[str, Any]:  # noqa: A002 -- the claim ``jti``
        """What a token says that shows that they are logged in."""
        return {
            "jti": id,
            "sub": self.id,
            "aud": self.application_id,
            "gen": self.generation,
            "iat": int(at.timestamp()),
            "exp": int((at + TOKEN_LIFE).timestamp()),
        }

    def must_be_logged_in(self, application: Application, claims: dict[str, Any], *, at: datetime) -> None:
        """Let whoever shows a token with these claims go on.

        Raises:
            NotLoggedIn: made for another application, or before what ended all tokens; or they may not log in now.
        """
        if (claims["sub"], claims["aud"], claims.get("gen")) != (self.id, self.application_id, self.generation):
            raise NotLoggedIn
        try:
            application.must_be_current(at=at)
            self.must_be_allowed_in(at=at)
        except Refusal:
            raise NotLoggedIn from None

    def update(self, *, username: str | None, email: str | None, active: bool | None, at: datetime) -> Self:
        """The same with what is given changed; who is deactivated is logged out everywhere."""
        changed = replace(
            self,
            username=self.username if username is None else username,
            email=self.email if email is None else email,
            active=self.active if active is None else active,
            updated_at=at,
        )
        return replace(changed, generation=self.generation + 1) if self.active and not changed.active else changed

    def change_password(self, password_hash: str, *, at: datetime) -> Self:
        """The same with another password, logged out everywhere."""
        return replace(self, password_hash=password_hash, generation=self.generation + 1, updated_at=at)

    def hash_again(self, password_hash: str) -> Self:
        """The same with the same password, hashed with today's parameters."""
        return replace(self, password_hash=password_hash)
