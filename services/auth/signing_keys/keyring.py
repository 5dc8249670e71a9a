"""Which key signs tokens right now? The active one of the store, once everybody has been told of its public half.

Every instance reads the topic ``auth.keys`` and looks into the store whenever something is said there: so a rotation
reaches all of them at once, and none ever signs with a key that a gateway does not know, or knows no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, get_args

from jwt import PyJWK
from jwt.exceptions import PyJWTError
from pydantic import ValidationError

from services.auth.signing_keys.key_pairs import SEALED_FOR, PrivateKey, make, unseal_private_key
from services.auth.signing_keys.models import KeySet, SigningKey
from services.auth.signing_keys.store import SigningKeys
from shared.bus.envelope import Record
from shared.messages import Message
from shared.messages.auth.errors import NoSigningKey
from shared.messages.auth.signing_keys import KEYRING, Algorithm, KeepSigningKeys, SigningKeyPublished
from shared.mongo import dependency_down
from shared.sealing import CannotUnseal, Sealer
from shared.settings import SettingsError
from shared.telemetry import log

LOOK_SECONDS: Final = 60.0
"""How often the store is looked into without being told to: the topic may be unreachable while MongoDB is not."""
PAUSE_SECONDS: Final = 0.5
"""Between two tries while the store can't be read."""
HEARING_SECONDS: Final = 30.0
"""How long what was announced at the start may take to come back."""


@dataclass(frozen=True, slots=True)
class ActiveKey:
    """A key that may sign.

    Attributes:
        kid: its name.
        algorithm: what it signs with.
        private_key: the key itself, ready for use.
    """

    kid: str
    algorithm: Algorithm
    private_key: PrivateKey


class Keyring:
    """The keys of a process.

    Args:
        store: where they are kept.
        sealer: opens their private halves.
    """

    def __init__(self, store: SigningKeys, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer
        self._announced: dict[str, PyJWK] = {}
        self._private: dict[str, ActiveKey] = {}
        self._active = ""
        self._news = asyncio.Event()
        self._stopping = False

    @property
    def signing(self) -> ActiveKey:
        """The key that signs.

        Raises:
            NoSigningKey: the active one was withdrawn a moment ago, and its successor is not known yet.
        """
        if self._active not in self._announced or self._active not in self._private:
            raise NoSigningKey
        return self._private[self._active]

    @property
    def announced(self) -> frozenset[str]:
        """The ``kid`` of every key that has been announced and not been withdrawn."""
        return frozenset(self._announced)

    def find(self, kid: str) -> PyJWK | None:
        """The public half of that name, tied to its algorithm; None when it is not announced."""
        return self._announced.get(kid)

    def take(self, record: Record) -> None:
        """Learn what is said on the topic: a key, or that one is withdrawn."""
        kid = (record.key or b"").decode(errors="replace")
        if record.value is None:
            self._announced.pop(kid, None)
            self._private.pop(kid, None)
        else:
            try:
                published = SigningKeyPublished.model_validate_json(record.value)
                self._announced[published.kid] = _public(published.jwk)
            except (ValidationError, PyJWTError, ValueError, KeyError) as wrong:
                # Never the record itself: should a private key be in it, the log is no place for it.
                log.error("signing key refused", offset=record.offset, error=type(wrong).__name__)
                return
        self._news.set()

    @asynccontextmanager
    async def kept(
        self, algorithm: Algorithm, announce: Callable[[Message], Awaitable[None]], *, at: datetime
    ) -> AsyncIterator[None]:
        """Ready to sign, and up to date, for as long as the block lasts; the first start ever makes a key.

        ``take`` must have been told all of the topic before. Of several instances that start at once one makes the
        key, and the others take it.

        Args:
            algorithm: what keys should sign with; if the active one doesn't, a successor is ordered.
            announce: puts a message on the bus.
            at: now.

        Raises:
            SettingsError: the keys are sealed with a master key that is not held.
            BusDown: Kafka did not take what had to be announced, or does not bring it back.
        """
        ring = await self._opened(algorithm, at)
        for key in ring.keys:
            # Only what the topic lacks: to repeat what was read a moment ago could revive what is withdrawn just now.
            if key.id not in self._announced:
                await announce(published(key))
        await self._heard(ring.active)
        await announce(KeepSigningKeys(key=KEYRING, algorithm=algorithm))
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            # Cancelling is not enough: pymongo makes a lost connection of it.
            self._stopping = True
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _opened(self, algorithm: Algorithm, at: datetime) -> KeySet:
        ring = await self._store.find()
        if ring is None:
            # Whoever is quickest, its key is there afterwards.
            await self._store.add_first(KeySet.begin(make(algorithm, self._sealer, at=at)))
            ring = await self._store.get()
        try:
            self._learn(ring)
            again = {
                key.id: self._sealer.seal(SEALED_FOR, self._sealer.unseal(SEALED_FOR, key.sealed_private))
                for key in ring.keys
                if key.sealed_private is not None and not self._sealer.is_current(key.sealed_private)
            }
        except CannotUnseal as closed:
            raise SettingsError(
                f"NEST_SEALING_KEYS: does not open the signing keys in the database ({closed}); keep the key they were"
                " sealed with in the list, behind the new one"
            ) from None
        if again:
            await self._store.seal_again(ring.with_private(again))
        return ring

    def _learn(self, ring: KeySet) -> None:
        """Know these keys; their private halves are opened once.

        Raises:
            CannotUnseal: one was sealed with a master key that is not held.
        """
        self._private = {
            key.id: self._private.get(key.id) or ActiveKey(key.id, key.algorithm, unseal_private_key(key, self._sealer))
            for key in ring.keys
            if key.sealed_private is not None
        }
        self._active = ring.active.id

    async def _heard(self, key: SigningKey) -> None:
        async with asyncio.timeout(HEARING_SECONDS):
            while key.id not in self._announced:
                self._news.clear()
                await self._news.wait()

    async def _follow(self) -> None:
        """Look into the store whenever there is news, and now and then besides."""
        while not self._stopping:
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                self._learn(await self._store.get())
            except CannotUnseal as closed:
                log.error("a signing key can't be opened: give NEST_SEALING_KEYS all keys", error=str(closed))
            except Exception as failure:  # noqa: BLE001 -- whatever it is, the next look may do
                if dependency_down(failure):
                    log.warning("signing keys not read", error=type(failure).__name__)
                else:
                    log.exception("signing keys not read")
                self._news.set()
                await asyncio.sleep(PAUSE_SECONDS)


def published(key: SigningKey) -> SigningKeyPublished:
    """What everybody may know of a key."""
    return SigningKeyPublished(key=key.id, kid=key.id, jwk=key.public_jwk)


def _public(jwk: dict[str, str]) -> PyJWK:
    """A public half, tied to its algorithm.

    Raises:
        ValueError, KeyError, PyJWTError: it is not one of a signing key.
    """
    if jwk["alg"] not in get_args(Algorithm) or "d" in jwk:
        raise ValueError("not the public half of a signing key")
    return PyJWK(dict(jwk))
