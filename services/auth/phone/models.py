"""What is a code by text good for? One login or registration, of one number, by who ordered it, for some minutes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Self

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType

from shared.messages.auth.errors import InvalidPhoneNumber, PhoneNumberNotAllowed

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


COUNTRIES: Final[frozenset[str]] = frozenset(phonenumbers.SUPPORTED_REGIONS)
"""ISO 3166-1 codes of the countries that have phone numbers: ``CH``."""


_WRITTEN: Final = re.compile(r"\s*\+?[0-9 ().\xa0-]{5,40}")
"""Digits and what people put between them. The library takes more, letters, extensions and other scripts' digits, by
which one number could be written in ways that look like another."""


_EXPENSIVE: Final = frozenset({PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.UAN})


@dataclass(frozen=True, slots=True)
class PhoneNumber:
    """A number that somebody could have.

    Attributes:
        e164: ``+41791234567``, the one form that is compared, stored, shown and texted to.
        country: ISO 3166-1 code, or ``001`` for a number of no country.
        expensive: whether whoever owns it may earn by being texted.
    """

    e164: str
    country: str
    expensive: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a number as people write it: country code first, with or without ``+``, with spaces or not.

        Raises:
            InvalidPhoneNumber: nobody can have such a number.
        """
        if not _WRITTEN.fullmatch(text):
            raise InvalidPhoneNumber
        digits = "".join(character for character in text if "0" <= character <= "9")
        try:
            number = phonenumbers.parse(f"+{digits}")
        except NumberParseException as wrong:
            raise InvalidPhoneNumber from wrong
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
    """Which numbers may be texted: each text costs money, and premium-rate numbers are how such a service is robbed.

    Attributes:
        countries: ISO 3166-1 codes; None: every country.
    """

    countries: Collection[str] | None

    def must_include(self, number: PhoneNumber) -> None:
        """Let a text go to this number.

        Raises:
            PhoneNumberNotAllowed: its country is not among those of the settings, or its owner earns by it.
        """
        if number.expensive or (self.countries is not None and number.country not in self.countries):
            raise PhoneNumberNotAllowed(country=number.country)
