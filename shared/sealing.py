"""Sealing: encryption of secrets for one service, so that Kafka, MongoDB and logs contain only ciphertext.

AES-256-GCM (NIST SP 800-38D) under a key derived from a master key for each receiver (HKDF, RFC 5869). A ciphertext is
written as ``<key ID>.<URL-safe base64 of nonce and ciphertext>``. For key rotation several master keys may be held: the
first one seals, all of them unseal.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.messages import Sealed

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12


class CannotUnseal(Exception):
    """The ciphertext is damaged, sealed for another receiver, or sealed with a key that is not held."""


class Sealer:
    """Seals secrets for any receiver and unseals them, with master keys by key ID; the first one seals.

    Attributes:
        sealed_messages: number of messages that the active key has sealed in this process, for all receivers. Each
            receiver has a derived key of its own, so it is at least the number under any AES key.

    Raises:
        ValueError: there is no key, or one does not have 32 bytes.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ValueError("at least one sealing key is needed")
        for key_id, key in keys.items():
            if len(key) != KEY_BYTES:
                raise ValueError(f"sealing key {key_id!r} has {len(key)} bytes instead of {KEY_BYTES}")
        self._keys = dict(keys)
        self._active = next(iter(self._keys))
        self.sealed_messages = 0
        self._ciphers: dict[tuple[str, str], AESGCM] = {}
        self._hash_keys: dict[tuple[str, str], bytes] = {}
        self._fingerprint_key = self._derive(self._active, "fingerprint")

    def seal(self, receiver: str, plain: bytes) -> str:
        """Encrypt a secret for one receiver."""
        self.sealed_messages += 1
        nonce = os.urandom(NONCE_BYTES)
        encrypted = self._cipher(self._active, receiver).encrypt(nonce, plain, receiver.encode())
        return f"{self._active}.{base64.urlsafe_b64encode(nonce + encrypted).decode()}"

    @property
    def active_key_id(self) -> str:
        """ID of the key that seals."""
        return self._active

    def unseal(self, receiver: str, ciphertext: str) -> bytes:
        """Decrypt a secret that ``seal`` encrypted for this receiver.

        Raises:
            CannotUnseal: damaged, sealed for another receiver, or sealed with a key that is not held.
        """
        key_id, _, encoded = ciphertext.partition(".")
        if key_id not in self._keys:
            raise CannotUnseal(f"sealing key {key_id!r} is not held")
        try:
            raw = base64.urlsafe_b64decode(encoded)
            return self._cipher(key_id, receiver).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], receiver.encode())
        except (ValueError, InvalidTag) as damaged:
            raise CannotUnseal(f"not sealed for {receiver}, or damaged") from damaged

    def unseal_secret(self, receiver: str, secret: Sealed) -> str:
        """Return the plain text of a message's secret field.

        Raises:
            CannotUnseal: as ``unseal``.
        """
        if secret.ciphertext is None:
            return secret.plain
        return self.unseal(receiver, secret.ciphertext).decode()

    def sealer_for(self, receiver: str) -> Callable[[str], str]:
        """Return a function that seals text for one receiver: the ``seal`` of a message's serialization context."""
        return lambda plain: self.seal(receiver, plain.encode())

    def is_current(self, ciphertext: str) -> bool:
        """Return True if the active key sealed this ciphertext; if not, it should be sealed again."""
        return ciphertext.partition(".")[0] == self._active

    def fingerprint(self, *parts: bytes) -> str:
        """Return a keyed hash, 64 hex characters, that tells equal inputs from different ones without revealing them.

        Keyed, because the plain hash of a six-digit code is reversed by trying a million codes. It changes with the
        active key.
        """
        return _hmac(self._fingerprint_key, parts)

    def keyed_hash(self, purpose: str, *parts: bytes) -> str:
        """Return a keyed hash to store, ``<key ID>.<64 hex characters>``; it can be compared after a key rotation."""
        return f"{self._active}.{_hmac(self._hash_key(self._active, purpose), parts)}"

    def keyed_hashes(self, purpose: str, *parts: bytes) -> list[str]:
        """Return the keyed hash under every held key; whenever it was stored, one of them is equal."""
        return [f"{key_id}.{_hmac(self._hash_key(key_id, purpose), parts)}" for key_id in self._keys]

    def hash_keys(self, purpose: str) -> dict[str, bytes]:
        """Return the keys of a purpose, 32 bytes each, by key ID; the first one is derived from the active key."""
        return {key_id: self._hash_key(key_id, purpose) for key_id in self._keys}

    def matches(self, purpose: str, keyed_hash: str, *parts: bytes) -> bool:
        """Compare a stored keyed hash in constant time; False also if its key is not held any more."""
        key_id, _, stored = keyed_hash.partition(".")
        return key_id in self._keys and hmac.compare_digest(_hmac(self._hash_key(key_id, purpose), parts), stored)

    def _hash_key(self, key_id: str, purpose: str) -> bytes:
        key = self._hash_keys.get((key_id, purpose))
        if key is None:
            key = self._hash_keys[key_id, purpose] = self._derive(key_id, f"hash for {purpose}")
        return key

    def _cipher(self, key_id: str, receiver: str) -> AESGCM:
        cipher = self._ciphers.get((key_id, receiver))
        if cipher is None:
            cipher = self._ciphers[key_id, receiver] = AESGCM(self._derive(key_id, f"seal for {receiver}"))
        return cipher

    def _derive(self, key_id: str, purpose: str) -> bytes:
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"nest {purpose}".encode()).derive(self._keys[key_id])


def _hmac(key: bytes, parts: Iterable[bytes]) -> str:
    """HMAC-SHA-256 (RFC 2104) as hex; length prefixes keep ("ab", "c") and ("a", "bc") apart."""
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        mac.update(len(part).to_bytes(4, "big") + part)
    return mac.hexdigest()
