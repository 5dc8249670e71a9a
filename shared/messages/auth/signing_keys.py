"""Signing keys of access tokens: rotation, publication and withdrawal."""

from typing import Annotated, Final, Literal

from pydantic import Field

from shared.messages.message import Command, Event, OperatorList, Part, Reply
from shared.messages.types import CreatedAt, Many, Moment

KEYRING: Final = "signing-keys"
"""Ordering key of all commands about signing keys: they are handled one at a time."""
JWKS_SECONDS: Final = 300
"""How long clients may cache the public keys, in seconds. A new key is published for longer before it signs."""

Algorithm = Literal["ES256", "ES512", "EdDSA"]


class SigningKeyView(Part):
    """A signing key, without its private part."""

    kid: str
    """Key ID, as in the ``kid`` header of tokens."""
    algorithm: Algorithm
    """JWS algorithm (RFC 7518)."""
    state: Literal["published", "active", "retired"]
    """``published`` before it signs, ``active`` while it signs, ``retired`` while it only verifies."""
    created_at: CreatedAt
    signs_from: Moment
    """When the key began to sign, or will begin."""
    verifies_until: Moment | None
    """When the key stops verifying and is removed; null before it is retired."""


class SigningKeysView(Reply):
    """All keys that verify tokens."""

    keys: Many[SigningKeyView]
    """The keys, oldest first."""


class RotateSigningKeys(Command, wire="auth.rotate-signing-keys", reply=SigningKeysView):
    """Rotate the signing key.

    Publishes a new key, which signs after its lead time. If one is published already, nothing changes.
    """

    emergency: bool = Field(default=False, strict=True)
    """Set if a key has leaked: the new key signs immediately, and all others are withdrawn. Access tokens signed before
    are refused; refresh tokens keep working."""


class KeepSigningKeys(Command, wire="auth.keep-signing-keys"):
    """Apply the rotation schedule: publish a successor, activate it, remove expired keys.

    Idempotent; several may be in progress. Each schedules one for the next due time.
    """

    algorithm: Algorithm | None = None
    """Algorithm of new keys; None for the setting of the handling instance."""
    due: Moment | None = None
    """Time that it was scheduled for. The handler takes it as the current time if its own clock is behind."""


class ListSigningKeys(OperatorList, wire="auth.list-signing-keys", reply=SigningKeysView):
    """List the signing keys.

    Includes retired keys that still verify tokens, and published keys that do not sign yet.
    """


class SigningKeyPublished(Event, wire="auth.signing-key-published", topic="auth.keys"):
    """Public key that may sign tokens (RFC 7517), published again at each change of state.

    The key is its ``kid``; the topic is compacted.
    """

    kid: str
    jwk: Annotated[dict[str, str], Field(max_length=32)]


class SigningKeyWithdrawn(Event, wire="auth.signing-key-withdrawn", topic="auth.keys", tombstone=True):
    """A key was withdrawn: tokens that it signed are invalid. The record's key is its ``kid``."""
