"""Formats of codes and refresh tokens, and the hashes under which their keys are stored.

A key has 256 random bits, so a plain SHA-256 hash does not reveal it. Salts and key stretching are for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Protocol, Self, TypeVar

from shared.errors import Refusal
from shared.messages.auth.errors import MalformedCode, MalformedRefreshToken, TokenNotFound

KEY_BYTES: Final = 32
FAMILY_KEY_DIGITS: Final = 24
"""Hex characters at the beginning of a refresh token's key that all tokens of its family have in common."""


class Keyed(Protocol):
    """A stored entity that a key opens."""

    @property
    def key_hash(self) -> str:
        """Hash of its key."""


Opened = TypeVar("Opened", bound=Keyed)


def new_key() -> str:
    """A random key: 64 lower-case hex characters."""
    return secrets.token_hex(KEY_BYTES)


def hash_key(key: str) -> str:
    """SHA-256 hash of a key, as 64 hex characters."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_matches(key: str, key_hash: str) -> bool:
    """Whether a key has this hash; compared in constant time."""
    return hmac.compare_digest(hash_key(key), key_hash)


def require_key(entity: Opened | None, key: str) -> Opened:
    """Return the entity that was found for a credential, if the credential's key opens it.

    Raises:
        TokenNotFound: there is no entity, or the key is wrong; the caller does not learn which.
    """
    if entity is None or not key_matches(key, entity.key_hash):
        raise TokenNotFound
    return entity


@dataclass(frozen=True, slots=True)
class _Credential:
    """An ID and a key in one string. Either may be any text without a dot, since both are looked up."""

    PREFIX: ClassVar[str] = ""
    MALFORMED: ClassVar[type[Refusal]]

    id: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a string sent by a client.

        Raises:
            MalformedCode, MalformedRefreshToken: the string has another format.
        """
        match = re.fullmatch(rf"{re.escape(cls.PREFIX)}([^.]+)\.([^.]+)", text)
        if match is None:
            raise cls.MALFORMED
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{self.PREFIX}{self.id}.{self.key}"


class Code(_Credential):
    """The code in a magic link: ``<authorization ID>.<key>``."""

    MALFORMED: ClassVar = MalformedCode


class RefreshTokenString(_Credential):
    """A refresh token as clients store it: ``01.<refresh token ID>.<key>``, where 01 is the version of the format.

    All tokens of a family have the ID and the family key in common, by which used ones are recognized. The rest of the
    key, 160 random bits (RFC 6749 section 10.10), differs for each token.
    """

    PREFIX: ClassVar = "01."
    MALFORMED: ClassVar = MalformedRefreshToken

    @property
    def family_key(self) -> str:
        """The part of the key that all tokens of the family have in common: 96 random bits."""
        return self.key[:FAMILY_KEY_DIGITS]

    def successor(self) -> Self:
        """A new token of the same family."""
        return replace(self, key=self.family_key + new_key()[FAMILY_KEY_DIGITS:])
