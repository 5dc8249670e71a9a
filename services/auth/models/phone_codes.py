"""What is a code by text good for? One login or registration, of one number, by who ordered it, for some minutes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

CODE_DIGITS: Final = 6
NONCE_BYTES: Final = 16
TOKEN_LIFE: Final = timedelta(hours=24)
"""How long the token of a login by phone is good: nothing renews it, and a text costs money."""


def new_code() -> str:
    """Six digits, each of the million as likely as any other."""
    return f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"


def new_nonce() -> str:
    """128 random bits as 32 lower-case hex characters."""
    return secrets.token_hex(NONCE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneCode:
    """A code that was texted.

    Attributes:
        nonce_hash: SHA-256 of the nonce, which only who ordered the code has.
        code_hash: a keyed hash of code, nonce and number: a plain one of six digits is found by trying.
        phone_number: E.164.
        used_at: when it was used up.
        wrong_codes: how many others were tried with its nonce.
    """

    id: str
    nonce_hash: str
    code_hash: str
    phone_number: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    wrong_codes: int = 0
    version: int = 1

    @classmethod
    def send(
        cls,
        *,
        id: str,  # noqa: A002 -- the field's name
        nonce_hash: str,
        code_hash: str,
        phone_number: str,
        life: timedelta,
        at: datetime,
    ) -> Self:
        """A new one, on its way to the number."""
        return cls(
            id=id,
            nonce_hash=nonce_hash,
            code_hash=code_hash,
            phone_number=phone_number,
            created_at=at,
            expires_at=at + life,
        )

    def is_open(self, *, most_wrong: int, at: datetime) -> bool:
        """Whether the right code would still be taken: unused, in time, fewer wrong ones before than void a nonce."""
        return self.used_at is None and at < self.expires_at and self.wrong_codes < most_wrong

    def use(self, *, at: datetime) -> Self:
        """The same, used up."""
        return replace(self, used_at=at)

    def count_wrong(self) -> Self:
        """The same with one more wrong code."""
        return replace(self, wrong_codes=self.wrong_codes + 1)
