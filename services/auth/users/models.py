"""Users, and the addresses and phone numbers that identify them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, Self

from shared.messages.auth.errors import UserAlreadyRegistered
from shared.phone_numbers import number_spellings

IdentifierType = Literal["email", "phone"]


def spellings(identifier_type: IdentifierType, value: str) -> tuple[str, ...]:
    """Return all values under which an identifier may be stored, the present one first; see ``number_spellings``."""
    return number_spellings(value) if identifier_type == "phone" else (value,)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person; without a name until the person registers one.

    Attributes:
        ordered_at: of a user who exists only because a stranger may have ordered a trial for the address: the time of
            the last order. None for all others, and once something else names the user.
    """

    id: str
    created_at: datetime
    first_name: str = ""
    last_name: str = ""
    ordered_at: datetime | None = None
    version: int = 1

    def set_name(self, first_name: str, last_name: str) -> Self:
        """Set the name of a user who has none.

        Raises:
            UserAlreadyRegistered: the user has a name.
        """
        if self.first_name or self.last_name:
            raise UserAlreadyRegistered
        return replace(self, first_name=first_name, last_name=last_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """An email address or phone number with which a user logs in; it belongs to one user at a time.

    Attributes:
        identifier_value: in normal form.
        verified_at: when the user proved control of it for the first time; None before.
        removed_at: when it was removed from the user, and became free for others.
    """

    id: str
    user_id: str
    identifier_type: IdentifierType
    identifier_value: str
    created_at: datetime
    updated_at: datetime
    verified_at: datetime | None
    removed_at: datetime | None = None
    version: int = 1

    @property
    def is_verified_email(self) -> bool:
        """Whether it is an email address that its user still has and has verified."""
        return self.identifier_type == "email" and self.verified_at is not None and self.removed_at is None

    def verify(self, *, at: datetime) -> Self:
        """Mark the identifier as verified."""
        return replace(self, verified_at=at, updated_at=at)


def is_unused(user: User, identifiers: Sequence[Identifier]) -> bool:
    """Whether a user exists only because a trial was ordered for the address, and has never logged in."""
    if user.ordered_at is None or user.first_name or user.last_name:
        return False
    return len(identifiers) == 1 and identifiers[0].verified_at is None
