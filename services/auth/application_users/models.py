"""Users of the owners' applications."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from services.auth.accounts.models import Application, a_year_after, upgraded_id
from shared.errors import Refusal
from shared.messages.auth.errors import (
    AddressNotVerified,
    ApplicationUserEnded,
    ApplicationUserNotActive,
    NotLoggedIn,
    PasswordRequired,
)

TOKEN_TYPE: Final = "application+jwt"  # noqa: S105 -- the header ``typ``
"""Header ``typ`` of the tokens of application users; no access token of a user of Nest is accepted as one."""
TOKEN_LIFETIME: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationUser:
    """A user of an application.

    Attributes:
        email: in normal form; unique within the application.
        verified_at: when the person proved to read the mailbox; None if that was never proven.
        locale: language of mails, if known.
        generation: increased whenever all tokens end. A token is valid only in the generation that it was issued in.
        ends_at: when logins end.
    """

    id: str
    application_id: str
    username: str
    email: str
    password_hash: str = field(repr=False)
    verified_at: datetime | None = None
    locale: str | None = None
    active: bool = True
    generation: int = 1
    created_at: datetime
    updated_at: datetime
    ends_at: datetime
    version: int = 1

    @property
    def verified(self) -> bool:
        """Whether the person proved to read the mailbox."""
        return self.verified_at is not None

    def must_be_verified(self, application: Application) -> None:
        """Check that the address is proven, if the application needs it.

        Raises:
            AddressNotVerified: it is not.
        """
        if application.verified_only and not self.verified:
            raise AddressNotVerified

    def must_be_allowed_in(self, *, at: datetime) -> None:
        """Check that the user may log in.

        Raises:
            ApplicationUserNotActive: the user is deactivated.
            ApplicationUserEnded: ``ends_at`` has been reached.
        """
        if not self.active:
            raise ApplicationUserNotActive
        if at >= self.ends_at:
            raise ApplicationUserEnded

    def must_have_first_password(self) -> None:
        """Check that ID and API key are enough to log in, as far as the user is concerned.

        A new password ends all tokens. Who knows the user's ID, from the claims of such a token or because they signed
        the user up, must not get another one without the new password.

        Raises:
            PasswordRequired: the password was changed or reset.
        """
        if self.generation > 1:
            raise PasswordRequired

    def token_claims(self, *, id: str, at: datetime) -> dict[str, Any]:  # noqa: A002 -- the claim ``jti``
        """Claims of a token of this user; clients from before Nest read ``id``, which equals ``sub``."""
        return {
            "jti": id,
            "sub": self.id,
            "id": self.id,
            "aud": self.application_id,
            "gen": self.generation,
            "iat": int(at.timestamp()),
            "exp": int((at + TOKEN_LIFETIME).timestamp()),
        }

    def must_be_logged_in(self, application: Application, claims: dict[str, Any], *, at: datetime) -> None:
        """Check that a token with these claims is valid for the user.

        Raises:
            NotLoggedIn: it was issued for another application or in an earlier generation, or logins have ended.
        """
        if (claims["sub"], claims.get("gen")) != (self.id, self.generation):
            raise NotLoggedIn
        if self.application_id not in (claims["aud"], upgraded_id(claims["aud"])):
            raise NotLoggedIn
        try:
            application.must_be_current(at=at)
            self.must_be_allowed_in(at=at)
        except Refusal:
            raise NotLoggedIn from None

    def update(self, *, username: str | None, email: str | None, active: bool | None, at: datetime) -> Self:
        """Change the given properties; None leaves one unchanged.

        A deactivation ends all tokens. Another address is not proven.
        """
        changed = replace(
            self,
            username=self.username if username is None else username,
            email=self.email if email is None else email,
            verified_at=self.verified_at if email in (None, self.email) else None,
            active=self.active if active is None else active,
            updated_at=at,
        )
        return replace(changed, generation=self.generation + 1) if self.active and not changed.active else changed

    def change_password(self, password_hash: str, *, at: datetime) -> Self:
        """Change the password, which ends all tokens."""
        return replace(self, password_hash=password_hash, generation=self.generation + 1, updated_at=at)

    def verify_address(self, *, at: datetime) -> Self:
        """Note that the person proved to read the mailbox."""
        return replace(self, verified_at=self.verified_at or at, updated_at=at)

    def reset_password(self, password_hash: str, *, at: datetime) -> Self:
        """Change the password after proof that the person reads the mailbox, which ends all tokens.

        Without proof before, a stranger may have registered the address. So the registration counts as one of this
        moment: the stranger can neither have deactivated the user nor have let the year pass.
        """
        changed = self.change_password(password_hash, at=at)
        if self.verified:
            return changed
        return replace(changed, verified_at=at, active=True, ends_at=max(self.ends_at, a_year_after(at)))
