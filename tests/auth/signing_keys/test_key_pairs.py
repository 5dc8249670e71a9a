from datetime import UTC, datetime

import jwt
import pytest

from services.auth.signing_keys.key_pairs import SEALING_PURPOSE, generate, thumbprint, unseal_private_key
from shared.messages.auth.signing_keys import Algorithm
from shared.sealing import CannotUnseal, Sealer

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
SEALER = Sealer({"a": bytes(range(32))})
ALGORITHMS: list[Algorithm] = ["ES256", "ES512", "EdDSA"]


def test_thumbprint_of_rfc_8037_appendix_a_3() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "ignored"}
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_public_jwk_contains_only_the_public_key(algorithm: Algorithm) -> None:
    key = generate(algorithm, SEALER, at=NOW)
    members = {"kty", "crv", "x", "y"} if algorithm != "EdDSA" else {"kty", "crv", "x"}
    assert key.public_jwk.keys() == members | {"kid", "alg", "use"}
    assert (key.public_jwk["kid"], key.public_jwk["alg"], key.public_jwk["use"]) == (key.id, algorithm, "sig")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_public_key_verifies_signatures_of_the_private_key(algorithm: Algorithm) -> None:
    key = generate(algorithm, SEALER, at=NOW)
    token = jwt.encode({"a": 1}, unseal_private_key(key, SEALER), algorithm)
    assert jwt.decode(token, jwt.PyJWK(dict(key.public_jwk)), algorithms=[algorithm]) == {"a": 1}


def test_private_key_is_sealed_for_its_own_purpose() -> None:
    key = generate("ES256", SEALER, at=NOW)
    assert key.sealed_private is not None
    with pytest.raises(CannotUnseal):
        SEALER.unseal("auth", key.sealed_private)
    assert SEALER.unseal(SEALING_PURPOSE, key.sealed_private)
