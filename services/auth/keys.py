"""Which key signs access tokens? Made at the first start, kept sealed, known to everybody else by its public half."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from services.auth.models.signing_keys import Algorithm, KeyState, SigningKey
from services.auth.store.signing_keys import SigningKeys
from shared.messages.auth import SigningKeyPublished
from shared.sealed import Sealer

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
SEALED_FOR: Final = "auth.signing-keys"
"""A purpose of its own: no ciphertext from the bus opens as a key."""
_THUMBPRINT_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
"""What the thumbprint is made of, in this order (RFC 7638 section 3.2, RFC 8037 section 2)."""


@dataclass(frozen=True, slots=True)
class Signing:
    """The key that signs.

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

    Attributes:
        signing: the key that signs.
        public_keys: the public halves of all keys whose tokens may be out, to be announced.
    """

    def __init__(self, signing: Signing, public_keys: tuple[SigningKeyPublished, ...]) -> None:
        self.signing = signing
        self.public_keys = public_keys
        self._verifying = {key.kid: PyJWK(dict(key.jwk)) for key in public_keys}

    def find(self, kid: str) -> PyJWK | None:
        """The public half of that name, tied to its algorithm; None when there is none or it is not in use."""
        return self._verifying.get(kid)


async def open_keyring(store: SigningKeys, sealer: Sealer, algorithm: Algorithm, *, at: datetime) -> Keyring:
    """The keys of this deployment; the first start makes one.

    Of several instances that start at once one makes the key, and the others take it.

    Raises:
        CannotOpen: the active key was sealed with a master key that is not held.
    """
    keys = await store.all()
    active = _active(keys, algorithm)
    if active is None:
        # Whoever is quickest, its key is there afterwards.
        await store.add_first(make(algorithm, sealer, at=at))
        keys = await store.all()
        active = _active(keys, algorithm)
    if active is None:
        raise RuntimeError(f"no active {algorithm} key, though one was just stored")
    return Keyring(
        Signing(active.id, algorithm, unseal(active, sealer)),
        tuple(SigningKeyPublished(key=key.id, kid=key.id, jwk=key.public_jwk) for key in keys),
    )


def make(algorithm: Algorithm, sealer: Sealer, *, at: datetime) -> SigningKey:
    """A new key pair, active."""
    private_key = _generate(algorithm)
    jwk = _public_jwk(private_key)
    kid = thumbprint(jwk)
    private = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey(
        id=kid,
        algorithm=algorithm,
        state=KeyState.ACTIVE,
        public_jwk={**jwk, "kid": kid, "alg": algorithm, "use": "sig"},
        sealed_private=sealer.seal(SEALED_FOR, private),
        created_at=at,
    )


def unseal(key: SigningKey, sealer: Sealer) -> PrivateKey:
    """The private half, ready for use.

    Raises:
        CannotOpen: it was sealed with a master key that is not held.
    """
    private_key = load_der_private_key(sealer.open(SEALED_FOR, key.sealed_private), password=None)
    if not isinstance(private_key, PrivateKey):
        raise TypeError(f"a {type(private_key).__name__} can't sign access tokens")
    return private_key


def thumbprint(jwk: dict[str, str]) -> str:
    """The name of a public key: SHA-256 over its required members (RFC 7638), in web-safe base64."""
    members = {member: jwk[member] for member in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def _active(keys: list[SigningKey], algorithm: Algorithm) -> SigningKey | None:
    return next((key for key in keys if key.state is KeyState.ACTIVE and key.algorithm == algorithm), None)


def _generate(algorithm: Algorithm) -> PrivateKey:
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES512":
            return ec.generate_private_key(ec.SECP521R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()


def _public_jwk(private_key: PrivateKey) -> dict[str, str]:
    jwk: dict[str, Any]
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        jwk = ECAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
    return {member: jwk[member] for member in _THUMBPRINT_MEMBERS[jwk["kty"]]}
