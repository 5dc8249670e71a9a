"""How is the API key of an application made from its id, and the id read from the key?

The key is the id written for people: each of the UUID's four 32-bit words is a group of seven characters of
Crockford's base 32 (https://www.crockford.com/base32.html). Seven characters have 35 bits; the last three check the
word. Made to equal, key by key, what old clients hold: those were written by the npm packages ``uuid-apikey`` and
``encode32``.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from shared.messages.auth.errors import MalformedApiKey

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
GROUP: Final = 7
WORD_BITS: Final = 32
CHECK_BITS: Final = 3
_LOOKALIKES: Final = str.maketrans("ILO", "110")
_KEY: Final = re.compile(rf"[{ALPHABET}]{{{GROUP}}}(?:-[{ALPHABET}]{{{GROUP}}}){{3}}")


def api_key(id: UUID) -> str:  # noqa: A002 -- the field's name
    """The key of an application: ``2YP47A5-YEWM1FG-MET9XB1-N6DN56N``."""
    words = [int.from_bytes(id.bytes[start : start + 4], "big") for start in range(0, 16, 4)]
    return "-".join(map(_group, words))


def id_of(key: str) -> UUID:
    """The id of the application that a key belongs to.

    As Crockford asks, lower case is read as upper case, I and L as 1, O as 0.

    Raises:
        MalformedApiKey: not four groups, or one of them whose check is wrong: nobody has this key.
    """
    # Some letters of other alphabets become ours in upper case; and a text of any length is not worked on.
    readable = len(key) == 4 * GROUP + 3 and key.isascii()
    canonical = key.upper().translate(_LOOKALIKES) if readable else ""
    if not _KEY.fullmatch(canonical):
        raise MalformedApiKey
    return UUID(bytes=b"".join(_word(group).to_bytes(4, "big") for group in canonical.split("-")))


def _group(word: int) -> str:
    number = word << CHECK_BITS | _check(word)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (GROUP - 1), -1, -5))


def _word(group: str) -> int:
    number = 0
    for character in group:
        number = number << 5 | ALPHABET.index(character)
    word, check = number >> CHECK_BITS, number & 7
    if check != _check(word):
        raise MalformedApiKey
    return word


def _check(word: int) -> int:
    """Three bits of parity: the word's bits taken three by three from its end, added without carry."""
    check = 0
    for shift in range(0, WORD_BITS, CHECK_BITS):
        check ^= word >> shift & 7
    return check
