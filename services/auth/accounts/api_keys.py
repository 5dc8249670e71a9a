"""API keys of applications: the application's UUID, written for people.

Each of the UUID's four 32-bit words becomes a group of seven characters in Crockford's base 32
(https://www.crockford.com/base32.html). Seven characters have 35 bits; the last three are a checksum of the word. The
keys are equal to those that the npm packages ``uuid-apikey`` and ``encode32`` have made for old clients.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from shared.messages.auth.errors import MalformedApiKey
from shared.messages.types import normal_api_key

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUP_LENGTH: Final = 7
WORD_BITS: Final = 32
CHECK_BITS: Final = 3
_KEY: Final = re.compile(rf"[{ALPHABET}]{{{GROUP_LENGTH}}}(?:-[{ALPHABET}]{{{GROUP_LENGTH}}}){{3}}")


def api_key(application_id: UUID) -> str:
    """The API key of an application, such as ``2YP47A5-YEWM1FG-MET9XB1-N6DN56N``."""
    words = [int.from_bytes(application_id.bytes[start : start + 4], "big") for start in range(0, 16, 4)]
    return "-".join(map(_group, words))


def id_of(key: str) -> UUID:
    """The ID of the application with this API key.

    The key may have any spelling that ``normal_api_key`` reads.

    Raises:
        MalformedApiKey: the key does not have four groups, or a checksum is wrong; no application has it.
    """
    # Length first: long texts take time.
    canonical = normal_api_key(key) if len(key) == 4 * GROUP_LENGTH + 3 else ""
    if not _KEY.fullmatch(canonical):
        raise MalformedApiKey
    return UUID(bytes=b"".join(_word(group).to_bytes(4, "big") for group in canonical.split("-")))


def _group(word: int) -> str:
    number = word << CHECK_BITS | _checksum(word)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (GROUP_LENGTH - 1), -1, -5))


def _word(group: str) -> int:
    number = 0
    for character in group:
        number = number << 5 | ALPHABET.index(character)
    word, checksum = number >> CHECK_BITS, number & 7
    if checksum != _checksum(word):
        raise MalformedApiKey
    return word


def _checksum(word: int) -> int:
    """The XOR of a word's groups of three bits, counted from the lowest bit."""
    checksum = 0
    for shift in range(0, WORD_BITS, CHECK_BITS):
        checksum ^= word >> shift & 7
    return checksum
