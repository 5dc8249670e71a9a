"""Keyring: the signing keys of one process, kept up to date with the store and the topic ``auth.keys``.

Every instance follows the topic, and reads the store whenever a record arrives. So a rotation reaches all instances at
once, and no instance signs with a key that the gateways do not know yet, or no longer know.
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

from services.auth.signing_keys.key_pairs import SEALING_PURPOSE, PrivateKey, generate, unseal_private_key
from services.auth.signing_keys.models import KEY_SET_ID, KeySet, SigningKey
from services.auth.signing_keys.store import SigningKeys
from shared.bus.envelope import Record
from shared.bus.producer import BusDown
from shared.bus.record_macs import has_mac_of
from shared.messages import Message
from shared.messages.auth.errors import NoSigningKey
from shared.messages.auth.signing_keys import KEYRING, Algorithm, KeepSigningKeys, SigningKeyPublished
from shared.mongo import dependency_down
from shared.sealing import CannotUnseal, Sealer
from shared.settings import SettingsError
from shared.telemetry import log

POLL_SECONDS: Final = 60.0
"""How often the store is read without a record on the topic: Kafka may be down while MongoDB is not."""
RETRY_SECONDS: Final = 0.5
"""Pause after a failed read of the store."""
PUBLISH_TIMEOUT_SECONDS: Final = 30.0
"""How long a start waits until the active key comes back on the topic."""


@dataclass(frozen=True, slots=True)
class ActiveKey:
    """A key that can sign, with its private key loaded."""

    kid: str
    algorithm: Algorithm
    private_key: PrivateKey


class Keyring:
    """The signing keys of a process."""

    def __init__(self, store: SigningKeys, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer
        self._published: dict[str, PyJWK] = {}
        self._old_records: set[str] = set()
        """Keys whose records have the MAC of an older sealing key, or none if the release before has published them."""
        self._private: dict[str, ActiveKey] = {}
        self._active = ""
        self._changed = asyncio.Event()
        self._stopping = False

    @property
    def active(self) -> ActiveKey:
        """The key that signs.

        Raises:
            NoSigningKey: the active key has just been withdrawn, and its successor is not known yet.
        """
        if self._active not in self._published or self._active not in self._private:
            raise NoSigningKey
        return self._private[self._active]

    @property
    def published(self) -> frozenset[str]:
        """``kid`` of every key that is published and not withdrawn."""
        return frozenset(self._published)

    def find(self, kid: str) -> PyJWK | None:
        """The public key with this ID, bound to its algorithm; None if it is not published."""
        return self._published.get(kid)

    def apply(self, record: Record) -> None:
        """Apply a record of the topic: a published key, or a withdrawal."""
        kid = (record.key or b"").decode(errors="replace")
        if record.value is None:
            self._published.pop(kid, None)
            self._private.pop(kid, None)
        else:
            try:
                published = SigningKeyPublished.model_validate_json(record.value)
                self._published[published.kid] = _public_key(published.jwk)
                current = has_mac_of(self._sealer.active_key_id, record)
                (self._old_records.discard if current else self._old_records.add)(published.kid)
            except (ValidationError, PyJWTError, ValueError, KeyError) as error:
                # The record is not logged: it might contain a private key.
                log.error("signing key refused", offset=record.offset, error=type(error).__name__)
                return
        self._changed.set()

    @asynccontextmanager
    async def running(
        self, algorithm: Algorithm, announce: Callable[[Message], Awaitable[None]], *, at: datetime
    ) -> AsyncIterator[None]:
        """Load the keys, publish them, and keep them up to date while the block runs.

        The whole topic must have been passed to ``apply`` before. The very first start generates a key; if several
        instances start at once, one generates it and the others load it.

        Args:
            algorithm: required algorithm; if the active key has another one, a successor is ordered.
            announce: publishes a message on the bus.
            at: now.

        Raises:
            SettingsError: the sealing key of the private keys is missing.
            BusDown: Kafka did not accept a message.
            TimeoutError: the active key did not come back on the topic.
        """
        key_set = await self._load(algorithm, at)
        for key in key_set.keys:
            # Only keys that the topic lacks: to repeat one could revive a key that is being withdrawn. One with an old
            # MAC is repeated nevertheless: gateways without the old sealing key would not know it.
            if key.id not in self._published or key.id in self._old_records:
                await announce(publication(key))
        await self._wait_until_published(key_set.active)
        await announce(KeepSigningKeys(key=KEYRING, algorithm=algorithm))
        following = asyncio.create_task(self._follow(announce))
        try:
            yield
        finally:
            # The flag is needed too: pymongo may turn a cancellation into a lost connection.
            self._stopping = True
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _load(self, algorithm: Algorithm, at: datetime) -> KeySet:
        key_set = await self._store.find(KEY_SET_ID)
        if key_set is None:
            # If another instance is faster, its key is the one that is read here.
            await self._store.add_first(KeySet.begin(generate(algorithm, self._sealer, at=at)))
            key_set = await self._store.get_key_set()
        try:
            self._use(key_set)
            resealed = {
                key.id: self._sealer.seal(SEALING_PURPOSE, self._sealer.unseal(SEALING_PURPOSE, key.sealed_private))
                for key in key_set.keys
                if key.sealed_private is not None and not self._sealer.is_current(key.sealed_private)
            }
        except CannotUnseal as error:
            raise SettingsError(
                f"NEST_SEALING_KEYS: does not unseal the signing keys in the database ({error}); keep the key they were"
                " sealed with in the list, behind the new one"
            ) from None
        if resealed:
            await self._store.reseal(key_set.with_sealed_private(resealed))
        return key_set

    def _use(self, key_set: KeySet) -> None:
        """Replace the keys by these, unsealing only new private keys."""
        self._private = {
            key.id: self._private.get(key.id) or ActiveKey(key.id, key.algorithm, unseal_private_key(key, self._sealer))
            for key in key_set.keys
            if key.sealed_private is not None
        }
        self._active = key_set.active.id

    async def _wait_until_published(self, key: SigningKey) -> None:
        async with asyncio.timeout(PUBLISH_TIMEOUT_SECONDS):
            while key.id not in self._published:
                self._changed.clear()
                await self._changed.wait()

    async def _follow(self, announce: Callable[[Message], Awaitable[None]]) -> None:
        """Read the store after each record of the topic, and every ``POLL_SECONDS``.

        A published key that the store lacks was withdrawn, and somebody has copied its old record: order its withdrawal
        again.
        """
        while not self._stopping:
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                key_set = await self._store.get_key_set()
                self._use(key_set)
                if self._published.keys() - {key.id for key in key_set.keys}:
                    await announce(KeepSigningKeys(key=KEYRING))
            except CannotUnseal as error:
                log.error("signing key not unsealed; add its sealing key to NEST_SEALING_KEYS", error=str(error))
            except Exception as failure:  # noqa: BLE001 -- the next read may succeed, whatever the error
                if dependency_down(failure) or isinstance(failure, BusDown):
                    log.warning("signing keys not read", error=type(failure).__name__)
                else:
                    log.exception("signing keys not read")
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)


def publication(key: SigningKey) -> SigningKeyPublished:
    """The event that publishes the public key of a key pair."""
    return SigningKeyPublished(key=key.id, kid=key.id, jwk=key.public_jwk)


def _public_key(jwk: dict[str, str]) -> PyJWK:
    """The public key of a JWK, bound to its algorithm.

    Raises:
        ValueError, KeyError, PyJWTError: the JWK is not the public key of a signing key.
    """
    if jwk["alg"] not in get_args(Algorithm) or "d" in jwk:
        raise ValueError("not the public key of a signing key")
    return PyJWK(dict(jwk))
