"""Resource IDs, ordered by time and with a prefix, and message IDs.

A resource ID is ``<resource>_<29 base62 characters>``. The characters encode 21 bytes: 8 of Unix seconds, 1 of the
scheme, 8 of the instance, 4 of a sequence number (a KSUID as drawn at https://github.com/ksuid). Outside production the
environment is a prefix: ``dev_user_…``. IDs are derived from the message that creates the resource. So they are the
same if the message is handled again after a restore of the database.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LENGTH: Final = 29
DERIVED_SCHEME: Final = b"M"
"""Scheme in which the instance part is 2 bytes of milliseconds and a hash of the message, and the sequence number
counts the message's IDs. Earlier releases have written ``R``, with a random instance part for each process."""

# Two characters per division halve the divisions of a large number.
_PAIRS = [first + second for first in ALPHABET for second in ALPHABET]
_DIGITS = {character: value for value, character in enumerate(ALPHABET)}


class Ids:
    """Resource IDs; every environment but ``production`` is their prefix."""

    def __init__(self, environment: str = "production") -> None:
        self._prefix = "" if environment == "production" else f"{environment}_"

    def derived(self, resource: str, message_id: str, time: int, number: int) -> str:
        """Return the ID of the n-th resource that a message creates.

        Args:
            resource: its kind.
            message_id: the message ID. A client's idempotency key determines it, so it may be used again after weeks.
            time: when the message was first published, Unix milliseconds; equal in all deliveries.
            number: n.
        """
        digest = hashlib.sha256(f"{message_id} {time}".encode()).digest()
        seconds, milliseconds = divmod(time, 1000)
        instance = milliseconds.to_bytes(2, "big") + digest[:6]
        raw = seconds.to_bytes(8, "big") + DERIVED_SCHEME + instance + number.to_bytes(4, "big")
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
