"""Phone numbers, and the codes that are texted to them."""

from __future__ import annotations

import re
import secrets
import unicodedata
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
MAX_WRITTEN_CHARACTERS: Final = 250
"""Length of the longest text that is read as a number; libphonenumber has the same limit."""
_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SEPARATORS: Final = frozenset("./[]~\u2053\u2212\u223c\u30fc")
"""Punctuation that libphonenumber drops, beside spaces, dashes, format characters and parentheses."""
_DROPPED_CATEGORIES: Final = frozenset({"Cf", "Pd"})
"""Format characters, such as the bidirectional marks around a number that was copied from an address book, and
dashes."""
_DIALLED: Final = re.compile(r"\+?(?:00)?([0-9]{5,40})")
_MEXICAN: Final = re.compile(r"\+52(?:0(?:[12]|4[45])|1)?([0-9]{10})")
"""Until 2019 a Mexican number had a ``1`` after the country code if it was a mobile phone's, and 01, 02, 044 or 045 if
it was dialled within the country. All of them reach the same phone."""
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
        """Parse a number with country code, with or without ``+`` or ``00`` before it.

        What libphonenumber drops is dropped: spaces, dashes and format characters of Unicode, dots, slashes, brackets,
        tildes, and a national prefix such as ``(0)``. Decimal digits of all scripts are read. Letters and extensions
        are refused, though libphonenumber reads them: they would make one number of texts that look different.

        Raises:
            InvalidPhoneNumber: there is no such number.
        """
        written = _written(text)
        # "(0)" is part of an Italian number, but not of a Spanish one, so both readings are tried.
        for candidate in dict.fromkeys((written, written.replace("(0)", ""))):
            dialled = _DIALLED.fullmatch(candidate.replace("(", "").replace(")", ""))
            parsed = None if dialled is None else cls._of(dialled[1])
            if parsed is not None:
                return parsed
        raise InvalidPhoneNumber

    @classmethod
    def _of(cls, digits: str) -> Self | None:
        try:
            number = phonenumbers.parse(number_spellings(f"+{digits}")[0])
        except NumberParseException:
            return None
        country = phonenumbers.region_code_for_number(number)
        if country is None or not phonenumbers.is_valid_number_for_region(number, country):
            return None
        return cls(
            e164=phonenumbers.format_number(number, PhoneNumberFormat.E164),
            country=country,
            expensive=phonenumbers.number_type(number) in _EXPENSIVE,
        )


def number_spellings(e164: str) -> tuple[str, ...]:
    """Return all forms in which a number may be stored, its present E.164 first.

    A Mexican number may be stored with the ``1`` that it had until 2019: ``+5215512345678`` is ``+525512345678``.
    Argentina's ``9`` distinguishes a mobile phone from another connection, so both are numbers of their own.
    """
    mexican = _MEXICAN.fullmatch(e164)
    return (e164,) if mexican is None else (f"+52{mexican[1]}", f"+521{mexican[1]}")


def _written(text: str) -> str:
    """The plus signs, ASCII digits and parentheses of a written number.

    Raises:
        InvalidPhoneNumber: it is too long, or contains something else than digits and separators.
    """
    if len(text) > MAX_WRITTEN_CHARACTERS:
        raise InvalidPhoneNumber
    kept = []
    for character in text.translate(_FULL_WIDTH):
        if character in "+()":
            kept.append(character)
        elif character.isdecimal():
            kept.append(str(unicodedata.decimal(character)))
        elif not _is_separator(character):
            raise InvalidPhoneNumber
    return "".join(kept)


def _is_separator(character: str) -> bool:
    return character in _SEPARATORS or character.isspace() or unicodedata.category(character) in _DROPPED_CATEGORIES


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
