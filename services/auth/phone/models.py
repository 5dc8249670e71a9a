"""Codes that are texted to phone numbers, and the numbers that may be texted."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

from shared.documents import stored_as
from shared.messages.auth.errors import PhoneNumberNotAllowed
from shared.phone_numbers import PhoneNumber

CODE_DIGITS: Final = 6
NONCE_BYTES: Final = 16
TOKEN_LIFETIME: Final = timedelta(hours=24)
"""Lifetime of an access token from a login by phone. It is long, since nothing renews the token and a text costs
money."""


@dataclass(frozen=True, slots=True)
class TextPolicy:
    """Countries (ISO 3166-1 codes) whose numbers may be texted; None for all.

    Each text costs money, and fraudsters order texts to their own premium-rate numbers.
    """

    countries: Collection[str] | None

    def must_allow(self, number: PhoneNumber) -> None:
        """Check that a number may be texted.

        Raises:
            PhoneNumberNotAllowed: its country is not allowed, or its owner earns from texts.
        """
        if number.expensive or (self.countries is not None and number.country not in self.countries):
            raise PhoneNumberNotAllowed(country=number.country)


def new_code() -> str:
    """A random code of six digits."""
    return f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"


def new_nonce() -> str:
    """A random nonce: 128 bits as 32 lower-case hex characters."""
    return secrets.token_hex(NONCE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneCode:
    """A texted code: good for one login or registration with one number, by the device that requested it.

    Attributes:
        nonce_hash: SHA-256 of the nonce, which only the device that requested the code has.
        code_hash: keyed hash of code, nonce and number. A plain hash of six digits could be reversed by trying all.
        phone_number: E.164.
        wrong_codes: number of wrong codes sent with the nonce so far.
    """

    id: str
    nonce_hash: str = stored_as("nonce")
    code_hash: str = stored_as("code")
    phone_number: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    wrong_codes: int = 0
    version: int = 1

    def is_open(self, *, max_wrong: int, at: datetime) -> bool:
        """Whether the code can be redeemed: unused, not expired, and with fewer than ``max_wrong`` wrong codes."""
        return self.used_at is None and at < self.expires_at and self.wrong_codes < max_wrong

    def use(self, *, at: datetime) -> Self:
        """Mark the code as redeemed."""
        return replace(self, used_at=at)

    def count_wrong(self) -> Self:
        """Count a wrong code."""
        return replace(self, wrong_codes=self.wrong_codes + 1)
