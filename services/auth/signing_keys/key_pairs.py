"""Generation, thumbprints and sealing of key pairs."""

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
SEALING_PURPOSE: Final = "auth.signing-keys"
"""A separate purpose, so that no ciphertext from the bus can be unsealed as a private key."""
_THUMBPRINT_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
"""Members of the thumbprint's input, in this order (RFC 7638 section 3.2, RFC 8037 section 2)."""


def generate(algorithm: Algorithm, sealer: Sealer, *, at: datetime) -> SigningKey:
    """Generate a key pair in the state ``published``, with ``signs_from`` now."""
    private_key = _generate_private_key(algorithm)
    jwk = _public_jwk(private_key)
    kid = thumbprint(jwk)
    private = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey(
        id=kid,
        algorithm=algorithm,
        state=KeyState.PUBLISHED,
        public_jwk={**jwk, "kid": kid, "alg": algorithm, "use": "sig"},
        sealed_private=sealer.seal(SEALING_PURPOSE, private),
        created_at=at,
        signs_from=at,
    )


def unseal_private_key(key: SigningKey, sealer: Sealer) -> PrivateKey:
    """Unseal and load the private key of a key pair.

    Raises:
        CannotUnseal: the sealing key that it was sealed with is missing, or the key is retired.
    """
    if key.sealed_private is None:
        raise CannotUnseal(f"the private key of {key.id} is deleted")
    private_key = load_der_private_key(sealer.unseal(SEALING_PURPOSE, key.sealed_private), password=None)
    if not isinstance(private_key, PrivateKey):
        raise TypeError(f"a {type(private_key).__name__} can't sign tokens")
    return private_key


def thumbprint(jwk: dict[str, str]) -> str:
    """Thumbprint of a public key: SHA-256 of its required members (RFC 7638), in base64url."""
    members = {member: jwk[member] for member in _THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def _generate_private_key(algorithm: Algorithm) -> PrivateKey:
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
