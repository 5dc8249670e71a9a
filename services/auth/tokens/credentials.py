"""Formats of codes and refresh tokens, and the hashes under which their keys are stored.

A key has 256 random bits, so a plain SHA-256 hash does not reveal it. Salts and key stretching are for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from shared.messages.auth.errors import MalformedCode, MalformedRefreshToken

KEY_BYTES: Final = 32


def new_key() -> str:
    """A random key: 64 lower-case hex characters."""
    return secrets.token_hex(KEY_BYTES)


def hash_key(key: str) -> str:
    """SHA-256 hash of a key, as 64 hex characters."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_matches(key: str, key_hash: str) -> bool:
    """Whether a key has this hash; compared in constant time."""
    return hmac.compare_digest(hash_key(key), key_hash)


@dataclass(frozen=True, slots=True)
class Code:
    """The code in a magic link: ``<authorization ID>.<key>``."""

    PATTERN: ClassVar = re.compile(r"([^.]+)\.([^.]+)", re.DOTALL)

    id: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a code sent by a client. The two parts may be any non-empty text, since both are looked up.

        Raises:
            MalformedCode: the text does not consist of two parts.
        """
        match = cls.PATTERN.fullmatch(text)
        if match is None:
            raise MalformedCode
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{self.id}.{self.key}"


@dataclass(frozen=True, slots=True)
class RefreshTokenString:
    """A refresh token as clients store it: ``01.<refresh token ID>.<key>``, where 01 is the version of the format."""

    PATTERN: ClassVar = re.compile(r"01\.([^.]+)\.([^.]+)", re.DOTALL)

    id: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a refresh token sent by a client.

        Raises:
            MalformedRefreshToken: the text has another format.
        """
        match = cls.PATTERN.fullmatch(text)
        if match is None:
            raise MalformedRefreshToken
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"01.{self.id}.{self.key}"
