"""What auth is ordered and asked about the keys that sign tokens, and what it announces of them."""

from typing import Final, Literal

from pydantic import Field

from shared.messages.message import Command, Event, Moment, Part, Query, Reply

KEYRING: Final = "signing-keys"
"""The ``key`` of every command about signing keys: they are handled one after the other."""
JWKS_SECONDS: Final = 300
"""How long anybody may keep the public keys before asking again; a key is published for longer before it signs."""

Algorithm = Literal["ES256", "ES512", "EdDSA"]


class SigningKeyView(Part):
    """A key, without its private half."""

    kid: str
    algorithm: Algorithm
    state: Literal["published", "active", "retired"]
    created_at: Moment
    signs_from: Moment
    """When it began to sign, or will."""
    verifies_until: Moment | None
    """When it will be forgotten; None before it is retired."""


class SigningKeysView(Reply):
    """Every key that verifies tokens, oldest first."""

    keys: tuple[SigningKeyView, ...]


class RotateSigningKeys(Command, wire="auth.rotate-signing-keys", reply=SigningKeysView):
    """Let a new key follow the one that signs.

    The new key is published now and signs after its lead time. While one waits for that, a repeat changes nothing.
    """

    emergency: bool = Field(default=False, strict=True)
    """A key has leaked: the new one signs at once, and every other is withdrawn. Access tokens that were signed before
    are refused from then on; refresh tokens are not touched."""


class KeepSigningKeys(Command, wire="auth.keep-signing-keys"):
    """Do whatever is due by now: publish a successor, let it sign, forget retired keys.

    Any number may be under way: what is done already is not done again. Each leaves one for the next due time.
    """

    algorithm: Algorithm | None = None
    """What keys should sign with; None for whatever the handling instance was told."""
    due: Moment | None = None
    """For what time it was ordered: it is that late at least, whatever the clock of who handles it says."""


class ListSigningKeys(Query, wire="auth.list-signing-keys", reply=SigningKeysView):
    """Which keys sign tokens, signed, or will."""


class SigningKeyPublished(Event, wire="auth.signing-key-published", topic="auth.keys"):
    """A public key that tokens may be signed with (RFC 7517). ``key`` is its ``kid``; the topic is compacted.

    Said when it is published, and again whenever its state changes.
    """

    kid: str
    jwk: dict[str, str]


class SigningKeyWithdrawn(Event, wire="auth.signing-key-withdrawn", topic="auth.keys", tombstone=True):
    """Nothing that the key ``key`` has signed is good any more."""
