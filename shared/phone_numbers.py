"""Phone numbers: parsing, the normal form E.164, and the ordering key of messages about one."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, Self

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType

from shared.messages.auth.errors import InvalidPhoneNumber
from shared.sealing import Sealer

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


def number_ordering_key(text: str, sealer: Sealer) -> str:
    """Return the ordering key of a phone number, 64 hex characters; all its spellings have the same key.

    Computed from E.164, by which rate limits count; see ``address_ordering_key``. A text that is no number is refused
    by its handler; its key is that of its digits. A keyed hash, since there are few enough numbers to try them all.
    """
    try:
        digits = PhoneNumber.parse(text).e164.removeprefix("+")
    except InvalidPhoneNumber:
        digits = "".join(filter(str.isdecimal, text))
    return sealer.fingerprint(b"phone number", digits.encode())


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
