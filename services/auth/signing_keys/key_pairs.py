"""How is a key pair made, named, and kept closed?"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from services.auth.signing_keys.models import KeyState, SigningKey
from shared.messages.auth.signing_keys import Algorithm
from shared.sealing import CannotUnseal, Sealer

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
SEALED_FOR: Final = "auth.signing-keys"
"""A purpose of its own: no ciphertext from the bus opens as a key."""
_THUMBPRINT_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
"""What the thumbprint is made of, in this order (RFC 7638 section 3.2, RFC 8037 section 2)."""


def make(algorithm: Algorithm, sealer: Sealer, *, at: datetime) -> SigningKey:
    """A new key pair, published, to sign from now on."""
    private_key = _generate(algorithm)
    jwk = _public_jwk(private_key)
    kid = thumbprint(jwk)
    private = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey(
        id=kid,
        algorithm=algorithm,
        state=KeyState.PUBLISHED,
        public_jwk={**jwk, "kid": kid, "alg": algorithm, "use": "sig"},
        sealed_private=sealer.seal(SEALED_FOR, private),
        created_at=at,
        signs_from=at,
    )


def unseal_private_key(key: SigningKey, sealer: Sealer) -> PrivateKey:
    """The private half, ready for use.

    Raises:
        CannotUnseal: it was sealed with a master key that is not held, or is gone since the key was retired.
    """
    if key.sealed_private is None:
        raise CannotUnseal(f"the private half of {key.id} is gone")
    private_key = load_der_private_key(sealer.unseal(SEALED_FOR, key.sealed_private), password=None)
    if not isinstance(private_key, PrivateKey):
        raise TypeError(f"a {type(private_key).__name__} can't sign tokens")
    return private_key


def thumbprint(jwk: dict[str, str]) -> str:
    """The name of a public key: SHA-256 over its required members (RFC 7638), in web-safe base64."""
    members = {member: jwk[member] for member in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


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
