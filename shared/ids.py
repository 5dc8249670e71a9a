"""How are things named: time-ordered ids with a prefix, and message ids.

``<resource>_<29 characters of base62>`` over 21 bytes: 8 of Unix seconds, 1 of scheme, 8 of instance, 4 of
sequence (a KSUID as https://github.com/ksuid draws it). Outside production the environment leads:
``dev_user_…``.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import time
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LENGTH: Final = 29
RANDOM_SCHEME: Final = b"R"
"""The instance part is random: drawn once by each process."""

# Two characters at a step halve the work on a large number.
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_DIGITS = {character: value for value, character in enumerate(ALPHABET)}


class Ids:
    """Makes the ids of one process.

    Args:
        environment: ``production`` leaves ids bare; any other leads them (``dev_user_…``).
    """

    def __init__(self, environment: str = "production") -> None:
        self._lead = "" if environment == "production" else f"{environment}_"
        self._renew(os.getpid())

    def _renew(self, pid: int) -> None:
        self._pid = pid
        self._instance = secrets.token_bytes(8)
        self._sequence = itertools.count()
        self._second = 0

    def new(self, resource: str) -> str:
        """A new id of a resource; later ones of this process sort after earlier ones."""
        if os.getpid() != self._pid:
            # A forked child that went on counting with the parent's instance would repeat its ids.
            self._renew(os.getpid())
        # A clock stepped back must not repeat a second whose sequence numbers are used.
        self._second = max(self._second, int(time.time()))
        sequence = next(self._sequence)
        if sequence >> 32:
            self._renew(self._pid)
            return self.new(resource)
        raw = self._second.to_bytes(8, "big") + RANDOM_SCHEME + self._instance + sequence.to_bytes(4, "big")
        return f"{self._lead}{resource}_{encode(raw)}"


def encode(raw: bytes) -> str:
    """21 bytes as 29 characters of base62.

    Raises:
        ValueError: not 21 bytes.
    """
    if len(raw) != 21:  # noqa: PLR2004 -- the layout in the module's docstring
        raise ValueError(f"an id has 21 bytes, not {len(raw)}")
    number = int.from_bytes(raw, "big")
    pairs = []
    for _ in range(LENGTH // 2 + 1):
        number, pair = divmod(number, len(_PAIRS))
        pairs.append(_PAIRS[pair])
    # Fifteen pairs are a character more than an id has; it is always the zero.
    return "".join(reversed(pairs))[1:]


def decode(text: str) -> bytes:
    """29 characters of base62 as 21 bytes.

    Raises:
        ValueError: not what ``encode`` gives.
    """
    if len(text) != LENGTH or not all(character in _DIGITS for character in text):
        raise ValueError("an id has 29 characters of base62")
    number = 0
    for character in text:
        number = number * 62 + _DIGITS[character]
    try:
        return number.to_bytes(21, "big")
    except OverflowError as too_large:
        raise ValueError("an id encodes 21 bytes") from too_large


def new_message_id() -> str:
    """128 random bits as 32 hex characters."""
    return secrets.token_hex(16)


def derived_message_id(*parts: str) -> str:
    """The same 32 hex characters for the same parts: what makes a repeat recognisable."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()[:32]
