"""Resource IDs, ordered by time and with a prefix, and message IDs.

A resource ID is ``<resource>_<29 base62 characters>``. The characters encode 21 bytes: 8 of Unix seconds, 1 of the
scheme, 8 of the instance, 4 of a sequence number (a KSUID as drawn at https://github.com/ksuid). Outside production the
environment is a prefix: ``dev_user_…``.
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
"""Scheme in which the instance part is random, drawn once by each process."""

# Two characters per division halve the divisions of a large number.
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_DIGITS = {character: value for value, character in enumerate(ALPHABET)}


class Ids:
    """Generator of resource IDs; every environment but ``production`` is their prefix."""

    def __init__(self, environment: str = "production") -> None:
        self._prefix = "" if environment == "production" else f"{environment}_"
        self._renew(os.getpid())

    def _renew(self, pid: int) -> None:
        self._pid = pid
        self._instance = secrets.token_bytes(8)
        self._sequence = itertools.count()
        self._second = 0

    def new(self, resource: str) -> str:
        """Return a new ID; it sorts after the earlier ones of this process."""
        if os.getpid() != self._pid:
            # A forked child with the parent's instance part would generate the parent's IDs again.
            self._renew(os.getpid())
        # If the clock is set back, the last second is kept: sequence numbers of earlier seconds are used up.
        self._second = max(self._second, int(time.time()))
        sequence = next(self._sequence)
        if sequence >> 32:
            self._renew(self._pid)
            return self.new(resource)
        raw = self._second.to_bytes(8, "big") + RANDOM_SCHEME + self._instance + sequence.to_bytes(4, "big")
        return f"{self._prefix}{resource}_{encode(raw)}"


def encode(raw: bytes) -> str:
    """Encode 21 bytes as 29 base62 characters; raise ValueError for any other number of bytes."""
    if len(raw) != 21:  # noqa: PLR2004 -- the layout in the module's docstring
        raise ValueError(f"an ID has 21 bytes, not {len(raw)}")
    number = int.from_bytes(raw, "big")
    pairs = []
    for _ in range(LENGTH // 2 + 1):
        number, pair = divmod(number, len(_PAIRS))
        pairs.append(_PAIRS[pair])
    # Fifteen pairs are one character more than an ID has; the first one is always zero.
    return "".join(reversed(pairs))[1:]


def decode(text: str) -> bytes:
    """Decode 29 base62 characters to 21 bytes; raise ValueError for a text that ``encode`` did not return."""
    if len(text) != LENGTH or not all(character in _DIGITS for character in text):
        raise ValueError("an ID has 29 base62 characters")
    number = 0
    for character in text:
        number = number * 62 + _DIGITS[character]
    try:
        return number.to_bytes(21, "big")
    except OverflowError as too_large:
        raise ValueError("an ID encodes 21 bytes") from too_large


def new_message_id() -> str:
    """Return a random message ID: 128 bits as 32 hex characters."""
    return secrets.token_hex(16)


def derived_message_id(*parts: str) -> str:
    """Return a message ID of 32 hex characters that is the same for the same parts, so that repeats are recognized."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        # Length prefixes keep ("ab", "c") and ("a", "bc") apart.
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()[:32]
