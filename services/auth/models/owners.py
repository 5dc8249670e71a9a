"""Who has applications?"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from shared.messages.auth.errors import InvalidToken

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
