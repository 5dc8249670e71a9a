"""Which keys sign access tokens, and which still verify some?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

Algorithm = Literal["ES256", "ES512", "EdDSA"]


class KeyState(StrEnum):
    """A key's life, in order. Its public half is announced in all three."""

    PUBLISHED = "published"
    """Known to those who verify, not signing yet."""
    ACTIVE = "active"
    """Signs; one for each algorithm."""
    RETIRED = "retired"
    """Signs no more; the last tokens it signed are still out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key pair.

    Attributes:
        id: the ``kid``: the thumbprint of its public half (RFC 7638).
        public_jwk: its public half (RFC 7517), with ``kid``, ``alg`` and ``use``.
        sealed_private: its private half, PKCS #8 in DER, sealed for auth itself.
    """

    id: str
    algorithm: Algorithm
    state: KeyState
    public_jwk: dict[str, str]
    sealed_private: str
    created_at: datetime
    version: int = 1
