"""What is a phone number, and which of them are texted?"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Self

import phonenumbers
from phonenumbers import NumberParseException, PhoneNumberFormat, PhoneNumberType

from shared.messages.auth.errors import InvalidPhoneNumber, PhoneNumberNotAllowed

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
class Texted:
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
