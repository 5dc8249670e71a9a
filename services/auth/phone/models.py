"""Phone numbers, and the codes that are texted to them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType

from shared.documents import stored_as
from shared.messages.auth.errors import InvalidPhoneNumber, PhoneNumberNotAllowed

CODE_DIGITS: Final = 6
NONCE_BYTES: Final = 16
TOKEN_LIFETIME: Final = timedelta(hours=24)
"""Lifetime of an access token from a login by phone. It is long, since nothing renews the token and a text costs
money."""
COUNTRIES: Final[frozenset[str]] = frozenset(phonenumbers.SUPPORTED_REGIONS)
"""ISO 3166-1 codes of the countries that have phone numbers."""
_WRITTEN_NUMBER: Final = re.compile(r"\s*\+?[0-9 ().\xa0-]{5,40}")
"""Digits and common separators. The phonenumbers library also accepts letters, extensions and digits of other scripts,
in which different-looking texts can be one number."""
_EXPENSIVE: Final = frozenset({PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.UAN})


@dataclass(frozen=True, slots=True)
class PhoneNumber:
    """A valid phone number.

    Attributes:
        e164: normal form, such as ``+41791234567``; compared, stored, shown and texted to.
        country: ISO 3166-1 code, or ``001`` for a number of no country.
        expensive: whether its owner may earn from texts to it.
    """

    e164: str
    country: str
    expensive: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a number with country code, with or without ``+`` and separators.

        Raises:
            InvalidPhoneNumber: there is no such number.
        """
        if not _WRITTEN_NUMBER.fullmatch(text):
            raise InvalidPhoneNumber
        digits = "".join(character for character in text if "0" <= character <= "9")
        try:
            number = phonenumbers.parse(f"+{digits}")
        except NumberParseException as error:
            raise InvalidPhoneNumber from error
        country = phonenumbers.region_code_for_number(number)
        if country is None or not phonenumbers.is_valid_number_for_region(number, country):
            raise InvalidPhoneNumber
        return cls(
            e164=phonenumbers.format_number(number, PhoneNumberFormat.E164),
            country=country,
            expensive=phonenumbers.number_type(number) in _EXPENSIVE,
        )


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
