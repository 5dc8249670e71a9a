"""Signing keys and their rotation: which key signs, which keys still verify, and when the next one takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from shared.documents import stored_as
from shared.messages.auth.signing_keys import Algorithm

MAX_TOKEN_LIFETIME: Final = timedelta(hours=24)
RETIREMENT: Final = MAX_TOKEN_LIFETIME + timedelta(minutes=10)
"""How long a retired key still verifies tokens. The margin covers instances that learn of the rotation late, and sign
with the old key meanwhile."""
KEY_SET_ID: Final = "ring"
"""``_id`` of the only document of its collection."""


class KeyState(StrEnum):
    """State of a signing key, in order of its life; afterwards the key is deleted.

    The public key is published in all three states.
    """

    PUBLISHED = "published"
    """Known to verifiers; does not sign yet."""
    ACTIVE = "active"
    """Signs."""
    RETIRED = "retired"
    """Never signs again, since its private key is deleted; verifies the last tokens that it signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key pair.

    Attributes:
        id: ``kid``: thumbprint of the public key (RFC 7638).
        public_jwk: public key (RFC 7517), with ``kid``, ``alg`` and ``use``.
        sealed_private: private key as PKCS #8 in DER, sealed for auth; None once it is retired.
        signs_from: when it began to sign, or will begin.
        verifies_until: when it is deleted; None until it is retired.
    """

    id: str = stored_as("kid")
    algorithm: Algorithm
    state: KeyState
    public_jwk: dict[str, str]
    sealed_private: str | None = stored_as("private")
    created_at: datetime
    signs_from: datetime
    verifies_until: datetime | None = None


GenerateKey = Callable[[Algorithm], SigningKey]
"""Generates a key pair in the state ``published``."""


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """Algorithm of new keys, how long a key signs, and how long it is published before that (``lead``)."""

    algorithm: Algorithm
    period: timedelta
    lead: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """All signing keys, oldest first, stored as one document so that they change together.

    Exactly one key is active, and at most one is published.
    """

    id: str = KEY_SET_ID
    keys: tuple[SigningKey, ...]
    version: int = 1

    @classmethod
    def begin(cls, key: SigningKey) -> Self:
        """The key set of the very first start. No verifier has older keys, so the first key signs at once."""
        return cls(keys=(replace(key, state=KeyState.ACTIVE),))

    @property
    def active(self) -> SigningKey:
        """The key that signs."""
        return next(key for key in self.keys if key.state is KeyState.ACTIVE)

    @property
    def successor(self) -> SigningKey | None:
        """The key that will sign next, if one is published."""
        return next((key for key in self.keys if key.state is KeyState.PUBLISHED), None)

    def rotate(self, policy: RotationPolicy, generate: GenerateKey, *, at: datetime) -> Self:
        """Publish a successor, unless one with the policy's algorithm is published already."""
        waiting = self.successor
        if waiting is not None and waiting.algorithm == policy.algorithm:
            return self
        key = replace(generate(policy.algorithm), signs_from=at + policy.lead)
        # A published key with another algorithm has signed nothing, so it is dropped and not retired.
        return self._with((*(other for other in self.keys if other is not waiting), key))

    def replace_all(self, key: SigningKey, *, at: datetime) -> Self:
        """Let this key sign at once, and retire all others with immediate effect, after a leak.

        All others are retired, since it is unknown which of the keys, stored together, has leaked.
        """
        return self._with((*(_retired(other, until=at) for other in self.keys), replace(key, state=KeyState.ACTIVE)))

    def advance(self, policy: RotationPolicy, generate: GenerateKey, *, at: datetime) -> Self:
        """Apply every change that is due: delete retired keys, activate the successor, publish a new one."""
        keys = [key for key in self.keys if key.verifies_until is None or at < key.verifies_until]
        successor = self.successor
        if successor is not None and successor.algorithm != policy.algorithm:
            # The algorithm was changed in the settings, and changed back.
            keys.remove(successor)
        elif successor is not None and successor.signs_from <= at:
            keys = [_next_state(key, at) for key in keys]
        advanced = self._with(keys)
        active = advanced.active
        if active.algorithm != policy.algorithm or active.signs_from + policy.period <= at:
            return advanced.rotate(policy, generate, at=at)
        return advanced

    def next_due(self, policy: RotationPolicy) -> datetime:
        """When ``advance`` has the next change to apply."""
        successor = self.successor
        times = [key.verifies_until for key in self.keys if key.verifies_until is not None]
        times.append(self.active.signs_from + policy.period if successor is None else successor.signs_from)
        return min(times)

    def with_sealed_private(self, sealed: dict[str, str]) -> Self:
        """Replace sealed private keys, given by ``kid``."""
        return self._with(
            tuple(replace(key, sealed_private=sealed.get(key.id, key.sealed_private)) for key in self.keys)
        )

    def _with(self, keys: Iterable[SigningKey]) -> Self:
        return replace(self, keys=tuple(keys))


def _next_state(key: SigningKey, at: datetime) -> SigningKey:
    """The key after the published key has begun to sign."""
    match key.state:
        case KeyState.PUBLISHED:
            return replace(key, state=KeyState.ACTIVE, signs_from=at)
        case KeyState.ACTIVE:
            return _retired(key, until=at + RETIREMENT)
        case KeyState.RETIRED:
            return key


def _retired(key: SigningKey, *, until: datetime) -> SigningKey:
    if key.verifies_until is not None:
        until = min(until, key.verifies_until)
    return replace(key, state=KeyState.RETIRED, sealed_private=None, verifies_until=until)
