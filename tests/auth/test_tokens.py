from datetime import UTC, datetime

import jwt
import pytest

from services.auth.keys import Keyring, make, unseal
from services.auth.models.chains import AccessToken, Chain, Grant
from services.auth.models.signing_keys import Algorithm
from services.auth.tokens import AccessTokenSigner
from shared.sealed import Sealer

NOW = datetime(2026, 11, 21, 6, 5, 7, 891_000, UTC)
SEALER = Sealer({"a": bytes(32)})


def keyring(algorithm: Algorithm) -> tuple[Keyring, dict[str, str]]:
    key = make(algorithm, SEALER, at=NOW)
    return Keyring(key.id, algorithm, unseal(key, SEALER), ()), key.public_jwk


@pytest.mark.parametrize("algorithm", ["ES256", "ES512", "EdDSA"])
def test_a_token_says_who_may_act_for_whom_and_until_when(algorithm: Algorithm) -> None:
    keys, public_jwk = keyring(algorithm)
    chain = Chain(root_grant="authzcode_1", client_id="client_one", user_id="user_1", ends_at=NOW)
    token = AccessToken.issue(chain, Grant("authorization_code", "authzcode_1"), id="acstok_1", at=NOW)
    text = AccessTokenSigner(keys, "https://nest.example").sign(token)
    assert jwt.get_unverified_header(text) == {"alg": algorithm, "kid": keys.kid, "typ": "JWT"}
    unchecked = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    assert jwt.decode(text, jwt.PyJWK(public_jwk), algorithms=[algorithm], options=unchecked) == {
        "v": "1",
        "jti": "acstok_1",
        "iss": "https://nest.example",
        "sub": "user_1",
        "aud": "client_one",
        "iat": 1795241107,
        "exp": 1795244707,
    }
    assert len(text) < 1024
