import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import jwt
import pytest

from services.auth.signing_keys.key_pairs import make
from services.auth.signing_keys.keyring import Keyring, published
from services.auth.signing_keys.models import KeySet
from services.auth.signing_keys.store import SigningKeys
from services.auth.tokens.models import AccessToken, Grant, TokenFamily
from services.auth.tokens.signer import TokenSigner, access_claims
from shared.messages.auth.errors import InvalidToken
from shared.messages.auth.signing_keys import Algorithm
from shared.sealing import Sealer
from tests.service_harness import TopicRecord

NOW = datetime(2026, 11, 21, 6, 5, 7, 891_000, UTC)
SEALER = Sealer({"a": bytes(32)})
ISSUER = "https://nest.example"
ALGORITHMS: list[Algorithm] = ["ES256", "ES512", "EdDSA"]
APPLICATION = "application+jwt"


def keyring(algorithm: Algorithm = "ES256") -> Keyring:
    key = make(algorithm, SEALER, at=NOW)
    keys = Keyring(cast("SigningKeys", None), SEALER)
    keys.take(TopicRecord("auth.keys", key.id.encode(), published(key).model_dump_json().encode()))
    keys._learn(KeySet.begin(key))
    return keys


def claims(**changed: Any) -> dict[str, Any]:
    now = int(NOW.timestamp())
    usual = {"sub": "user_1", "aud": "app_1", "jti": "token_1", "iat": now, "exp": now + 3600, **changed}
    return {name: value for name, value in usual.items() if value is not None}


def raw(keys: Keyring, payload: Any, **header: Any) -> str:
    """A token with this very header and payload, signed by our own key."""
    whole = {"alg": keys.signing.algorithm, "kid": keys.signing.kid, "typ": APPLICATION, **header}
    written = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    parts = [json.dumps(whole).encode(), written]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    algorithm = jwt.get_algorithm_by_name(keys.signing.algorithm)
    return (
        signed + b"." + base64.urlsafe_b64encode(algorithm.sign(signed, keys.signing.private_key)).rstrip(b"=")
    ).decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_access_token_says_who_may_act_for_whom_and_until_when(algorithm: Algorithm) -> None:
    keys = keyring(algorithm)
    chain = TokenFamily(root_grant="authzcode_1", client_id="client_one", user_id="user_1", began_at=NOW, ends_at=NOW)
    token = AccessToken.issue(chain, Grant("authorization_code", "authzcode_1"), id="acstok_1", at=NOW)
    text = TokenSigner(keys, ISSUER).sign(access_claims(token))
    assert jwt.get_unverified_header(text) == {"alg": algorithm, "kid": keys.signing.kid, "typ": "JWT"}
    unchecked = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    public = keys.find(keys.signing.kid)
    assert public is not None
    assert jwt.decode(text, public, algorithms=[algorithm], options=unchecked) == {
        "v": "1",
        "jti": "acstok_1",
        "iss": ISSUER,
        "sub": "user_1",
        "aud": "client_one",
        "iat": 1795241107,
        "exp": 1795244707,
    }
    assert len(text) < 1024


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_signed_is_read_back(algorithm: Algorithm) -> None:
    signer = TokenSigner(keyring(algorithm), ISSUER)
    token = signer.sign(claims(extra="x"), typ=APPLICATION)
    for audience in ("app_1", None):
        read = signer.verify(token, typ=APPLICATION, audience=audience, at=NOW)
        assert read == {**claims(extra="x"), "iss": ISSUER}


def test_a_token_is_good_for_its_kind_its_audience_its_issuer_and_its_time_alone() -> None:
    keys = keyring()
    signer = TokenSigner(keys, ISSUER)
    token = signer.sign(claims(), typ=APPLICATION)
    wanted: dict[str, Any] = {"typ": APPLICATION, "audience": "app_1", "at": NOW}
    assert signer.verify(token, **wanted)
    for wrong in ({"typ": "JWT"}, {"audience": "app_2"}, {"audience": ""}, {"at": NOW + timedelta(hours=1)}):
        with pytest.raises(InvalidToken):
            signer.verify(token, **{**wanted, **wrong})
    for stranger in (TokenSigner(keys, "https://other.example"), TokenSigner(keyring(), ISSUER)):
        with pytest.raises(InvalidToken):
            stranger.verify(token, **wanted)


@pytest.mark.parametrize(
    "header",
    [
        {"kid": None},
        {"kid": "../../dev/null"},
        {"kid": "' or 1=1 --"},
        {"kid": {"$gt": ""}},
        {"typ": None},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES512"},
        {"crit": ["exp"]},
        {"b64": False},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert"},
        {"jwk": {"kty": "EC"}},
    ],
)
def test_a_header_that_asks_for_more_is_refused(header: dict[str, Any]) -> None:
    keys = keyring()
    good = {"iss": ISSUER, **claims()}
    assert TokenSigner(keys, ISSUER).verify(raw(keys, good), typ=APPLICATION, audience="app_1", at=NOW)
    with pytest.raises(InvalidToken):
        TokenSigner(keys, ISSUER).verify(raw(keys, good, **header), typ=APPLICATION, audience="app_1", at=NOW)


@pytest.mark.parametrize(
    "payload",
    [
        *({"iss": ISSUER, **claims(**{name: None})} for name in ("sub", "aud", "jti", "iat", "exp")),
        {"iss": ISSUER, **claims(exp="9999999999")},
        {"iss": ISSUER, **claims(exp=1e999)},
        {"iss": ISSUER, **claims(aud=["app_1"])},
        {"iss": ISSUER, **claims(sub={"$gt": ""})},
        {"iss": ISSUER, **claims(nbf=int(NOW.timestamp()) + 10)},
        claims(),
        [],
        b"[" * 2000 + b"]" * 2000,
        b"\xff",
    ],
)
def test_claims_that_say_less_or_otherwise_are_refused(payload: Any) -> None:
    keys = keyring()
    with pytest.raises(InvalidToken):
        TokenSigner(keys, ISSUER).verify(raw(keys, payload), typ=APPLICATION, audience=None, at=NOW)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é.é.é", "a" * 1_000_000, "." * 4096])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        TokenSigner(keyring(), ISSUER).verify(text, typ="JWT", audience=None, at=NOW)


def test_no_token_is_signed_that_lives_longer_than_its_key_is_kept() -> None:
    signer = TokenSigner(keyring(), ISSUER)
    now = int(NOW.timestamp())
    assert signer.sign(claims(exp=now + 24 * 3600))
    for wrong in ({"exp": now + 24 * 3600 + 1}, {"exp": None}, {"iat": 1.5}, {"aud": None}, {"jti": ""}):
        with pytest.raises(ValueError, match="token"):
            signer.sign(claims(**wrong))
