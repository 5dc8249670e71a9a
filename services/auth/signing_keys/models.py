"""Which key signs tokens, which ones still verify some, and when does one follow the other?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Self

from shared.messages.auth.signing_keys import Algorithm

MAX_TOKEN_LIFETIME: Final = timedelta(hours=24)
"""No token of ours lives longer."""
KEPT: Final = MAX_TOKEN_LIFETIME + timedelta(minutes=10)
"""How long a key verifies after it was retired: an instance that hears of it late has signed with it meanwhile."""


class KeyState(StrEnum):
    """A key's life, in order; afterwards it is forgotten. Its public half is announced in all three."""

    PUBLISHED = "published"
    """Known to those who verify, not signing yet."""
    ACTIVE = "active"
    """Signs."""
    RETIRED = "retired"
    """Signs no more, and never will: its private half is gone. The last tokens it signed are still out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key pair.

    Attributes:
        id: the ``kid``: the thumbprint of its public half (RFC 7638).
        public_jwk: its public half (RFC 7517), with ``kid``, ``alg`` and ``use``.
        sealed_private: its private half, PKCS #8 in DER, sealed for auth itself; None once it is retired.
        signs_from: when it began to sign, or will.
        verifies_until: when it is forgotten; None until it is retired.
    """

    id: str
    algorithm: Algorithm
    state: KeyState
    public_jwk: dict[str, str]
    sealed_private: str | None
    created_at: datetime
    signs_from: datetime
    verifies_until: datetime | None = None


Make = Callable[[Algorithm], SigningKey]
"""Makes a key pair, published now."""


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """When keys follow each other.

    Attributes:
        algorithm: what keys should sign with.
        period: how long a key signs.
        lead: how long it is published before.
    """

    algorithm: Algorithm
    period: timedelta
    lead: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """All keys, kept as one so that they change as one. One of them is active, and at most one published.

    Attributes:
        keys: oldest first.
    """

    keys: tuple[SigningKey, ...]
    version: int = 1

    @classmethod
    def begin(cls, key: SigningKey) -> Self:
        """The ring of a first start: nobody can hold keys of older ones, so the first signs at once."""
        return cls(keys=(replace(key, state=KeyState.ACTIVE),))

    @property
    def active(self) -> SigningKey:
        """The key that signs."""
        return next(key for key in self.keys if key.state is KeyState.ACTIVE)

    @property
    def successor(self) -> SigningKey | None:
        """The key that will sign, if one is published already."""
        return next((key for key in self.keys if key.state is KeyState.PUBLISHED), None)

    def rotate(self, rotation: RotationPolicy, make: Make, *, at: datetime) -> Self:
        """The same with a successor: the one that waits already, if it has the algorithm, else a new one."""
        waiting = self.successor
        if waiting is not None and waiting.algorithm == rotation.algorithm:
            return self
        key = replace(make(rotation.algorithm), signs_from=at + rotation.lead)
        # One that has signed nothing yet needs no farewell.
        return self._with((*(other for other in self.keys if other is not waiting), key))

    def replace_all(self, key: SigningKey, *, at: datetime) -> Self:
        """The same after a leak: this key signs at once, and all others are to be forgotten now.

        All, since nobody can say which of several keys that lay side by side has leaked.
        """
        return self._with((*(_retired(other, until=at) for other in self.keys), replace(key, state=KeyState.ACTIVE)))

    def keep(self, rotation: RotationPolicy, make: Make, *, at: datetime) -> Self:
        """The same with everything done that is due: keys forgotten, the successor signing, a new one published."""
        keys = [key for key in self.keys if key.verifies_until is None or at < key.verifies_until]
        successor = self.successor
        if successor is not None and successor.algorithm != rotation.algorithm:
            # Settings were changed, and changed back.
            keys.remove(successor)
        elif successor is not None and successor.signs_from <= at:
            keys = [_moved_on(key, at) for key in keys]
        kept = self._with(keys)
        active = kept.active
        if active.algorithm != rotation.algorithm or active.signs_from + rotation.period <= at:
            return kept.rotate(rotation, make, at=at)
        return kept

    def next_due(self, rotation: RotationPolicy) -> datetime:
        """When ``keep`` has something to do again."""
        successor = self.successor
        times = [key.verifies_until for key in self.keys if key.verifies_until is not None]
        times.append(self.active.signs_from + rotation.period if successor is None else successor.signs_from)
        return min(times)

    def with_private(self, sealed: dict[str, str]) -> Self:
        """The same with private halves sealed anew, by ``kid``."""
        return self._with(
            tuple(replace(key, sealed_private=sealed.get(key.id, key.sealed_private)) for key in self.keys)
        )

    def _with(self, keys: Iterable[SigningKey]) -> Self:
        return replace(self, keys=tuple(keys))


def _moved_on(key: SigningKey, at: datetime) -> SigningKey:
    """The key in its next state, when the published one begins to sign."""
    match key.state:
        case KeyState.PUBLISHED:
            return replace(key, state=KeyState.ACTIVE, signs_from=at)
        case KeyState.ACTIVE:
            return _retired(key, until=at + KEPT)
        case KeyState.RETIRED:
            return key


def _retired(key: SigningKey, *, until: datetime) -> SigningKey:
    if key.verifies_until is not None:
        until = min(until, key.verifies_until)
    return replace(key, state=KeyState.RETIRED, sealed_private=None, verifies_until=until)
