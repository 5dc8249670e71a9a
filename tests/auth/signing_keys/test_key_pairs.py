from datetime import UTC, datetime

import jwt
import pytest

from services.auth.signing_keys.key_pairs import SEALED_FOR, make, thumbprint, unseal_private_key
from shared.messages.auth.signing_keys import Algorithm
from shared.sealing import CannotUnseal, Sealer

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
SEALER = Sealer({"a": bytes(range(32))})
ALGORITHMS: list[Algorithm] = ["ES256", "ES512", "EdDSA"]


def test_a_name_is_the_thumbprint_of_rfc_8037_appendix_a_3() -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "ignored"}
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_announced_of_a_key_is_its_public_half(algorithm: Algorithm) -> None:
    key = make(algorithm, SEALER, at=NOW)
    members = {"kty", "crv", "x", "y"} if algorithm != "EdDSA" else {"kty", "crv", "x"}
    assert key.public_jwk.keys() == members | {"kid", "alg", "use"}
    assert (key.public_jwk["kid"], key.public_jwk["alg"], key.public_jwk["use"]) == (key.id, algorithm, "sig")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_announced_half_verifies_what_the_private_one_signs(algorithm: Algorithm) -> None:
    key = make(algorithm, SEALER, at=NOW)
    token = jwt.encode({"a": 1}, unseal_private_key(key, SEALER), algorithm)
    assert jwt.decode(token, jwt.PyJWK(dict(key.public_jwk)), algorithms=[algorithm]) == {"a": 1}


def test_a_private_half_is_only_kept_sealed_and_for_nothing_else() -> None:
    key = make("ES256", SEALER, at=NOW)
    assert key.sealed_private is not None
    with pytest.raises(CannotUnseal):
        SEALER.unseal("auth", key.sealed_private)
    assert SEALER.unseal(SEALED_FOR, key.sealed_private)
