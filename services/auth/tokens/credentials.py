"""What do codes and refresh tokens look like, and what is kept of their keys?

A key has 256 random bits, so its plain SHA-256 tells nothing about it: salt and stretching are for passwords.
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
    """A fresh secret: 64 lower-case hex characters."""
    return secrets.token_hex(KEY_BYTES)


def hash_key(key: str) -> str:
    """What is stored of a key: its SHA-256 as 64 hex characters."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Code:
    """What the magic link carries: ``<authorization id>.<key>``."""

    PATTERN: ClassVar = re.compile(r"([^.]+)\.([^.]+)", re.DOTALL)

    id: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a code that a client sent; any two non-empty parts will do, since both are looked up.

        Raises:
            MalformedCode: not two parts.
        """
        match = cls.PATTERN.fullmatch(text)
        if match is None:
            raise MalformedCode
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{self.id}.{self.key}"


@dataclass(frozen=True, slots=True)
class RefreshTokenString:
    """What an app keeps to renew its access: ``01.<refresh token id>.<key>``; 01 is the version of this form."""

    PATTERN: ClassVar = re.compile(r"01\.([^.]+)\.([^.]+)", re.DOTALL)

    id: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a refresh token that a client sent.

        Raises:
            MalformedRefreshToken: not of this form.
        """
        match = cls.PATTERN.fullmatch(text)
        if match is None:
            raise MalformedRefreshToken
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"01.{self.id}.{self.key}"


def same_key(key: str, key_hash: str) -> bool:
    """Whether this is the key behind a stored hash; takes the same time for every wrong one."""
    return hmac.compare_digest(hash_key(key), key_hash)
