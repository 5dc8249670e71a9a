"""How is a secret closed for one service, so that Kafka, MongoDB and logs only ever hold ciphertext?

AES-256-GCM (NIST SP 800-38D) under a key derived from the master key for each receiver (HKDF, RFC 5869), written as
``<key id>.<web-safe base64 of nonce and ciphertext>``. Rotation: the first key seals, all of them open.
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


class CannotOpen(Exception):
    """The ciphertext was made for another receiver, with a key that is gone, or was changed on its way."""


class Sealer:
    """Closes secrets for any service, and opens those closed for one.

    Args:
        keys: master keys of 32 bytes by id, the one that seals first.

    Raises:
        ValueError: no key, or one that isn't 32 bytes long.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        if not keys:
            raise ValueError("at least one sealing key is needed")
        for key_id, key in keys.items():
            if len(key) != KEY_BYTES:
                raise ValueError(f"sealing key {key_id!r} has {len(key)} bytes instead of {KEY_BYTES}")
        self._keys = dict(keys)
        self._active = next(iter(self._keys))
        self._ciphers: dict[tuple[str, str], AESGCM] = {}
        self._hash_keys: dict[tuple[str, str], bytes] = {}
        self._fingerprint_key = self._derive(self._active, "fingerprint")

    def seal(self, receiver: str, plain: bytes) -> str:
        """The secret, readable by ``receiver`` alone."""
        nonce = os.urandom(NONCE_BYTES)
        closed = self._cipher(self._active, receiver).encrypt(nonce, plain, receiver.encode())
        return f"{self._active}.{base64.urlsafe_b64encode(nonce + closed).decode()}"

    def open(self, receiver: str, ciphertext: str) -> bytes:
        """The secret that ``seal`` closed for this receiver.

        Raises:
            CannotOpen: it was closed for another one, with a key not held, or is damaged.
        """
        key_id, _, closed = ciphertext.partition(".")
        if key_id not in self._keys:
            raise CannotOpen(f"no sealing key {key_id!r} is held")
        try:
            raw = base64.urlsafe_b64decode(closed)
            return self._cipher(key_id, receiver).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], receiver.encode())
        except (ValueError, InvalidTag) as damaged:
            raise CannotOpen(f"not sealed for {receiver}, or damaged") from damaged

    def seals_so(self, ciphertext: str) -> bool:
        """Whether this was closed with the key that seals now; if not, it can be sealed again."""
        return ciphertext.partition(".")[0] == self._active

    def sealing_for(self, receiver: str) -> Callable[[str], str]:
        """What closes a text for one receiver; the ``seal`` of a message's serialisation context."""
        return lambda plain: self.seal(receiver, plain.encode())

    def reveal(self, receiver: str, secret: Sealed) -> str:
        """The plain text of a message's secret field.

        Raises:
            CannotOpen: as ``open``.
        """
        if secret.ciphertext is None:
            return secret.plain
        return self.open(receiver, secret.ciphertext).decode()

    def fingerprint(self, *parts: bytes) -> str:
        """A keyed hash that tells whether two requests are the same without telling what they said.

        Keyed, because a six-digit code behind a plain hash is found by trying a million.
        """
        return _mac(self._fingerprint_key, parts)

    def keyed_hash(self, purpose: str, *parts: bytes) -> str:
        """A keyed hash to be stored, ``<key id>.<64 hex characters>``: unlike a fingerprint it outlives a new key."""
        return f"{self._active}.{_mac(self._hash_key(self._active, purpose), parts)}"

    def keyed_hashes(self, purpose: str, *parts: bytes) -> list[str]:
        """The keyed hash under every key that is held: one of them was stored, whenever that was."""
        return [f"{key_id}.{_mac(self._hash_key(key_id, purpose), parts)}" for key_id in self._keys]

    def matches(self, purpose: str, keyed_hash: str, *parts: bytes) -> bool:
        """Whether a stored keyed hash is of these parts, compared in constant time; no, when its key is gone."""
        key_id, _, stored = keyed_hash.partition(".")
        return key_id in self._keys and hmac.compare_digest(_mac(self._hash_key(key_id, purpose), parts), stored)

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


def _mac(key: bytes, parts: Iterable[bytes]) -> str:
    """HMAC-SHA-256 (RFC 2104) as hex; lengths keep ("ab", "c") and ("a", "bc") apart."""
    mac = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        mac.update(len(part).to_bytes(4, "big") + part)
    return mac.hexdigest()
