import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import jwt
import pytest

from services.auth.signing_keys.key_pairs import generate
from services.auth.signing_keys.keyring import Keyring, publication
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
    key = generate(algorithm, SEALER, at=NOW)
    keys = Keyring(cast("SigningKeys", None), SEALER)
    keys.apply(TopicRecord("auth.keys", key.id.encode(), publication(key).model_dump_json().encode()))
    keys._use(KeySet.begin(key))
    return keys


def claims(**changed: Any) -> dict[str, Any]:
    now = int(NOW.timestamp())
    defaults = {"sub": "user_1", "aud": "app_1", "jti": "token_1", "iat": now, "exp": now + 3600, **changed}
    return {name: value for name, value in defaults.items() if value is not None}


def raw(keys: Keyring, payload: Any, **header: Any) -> str:
    """A token with any header and payload, signed by the active key."""
    headers = {"alg": keys.active.algorithm, "kid": keys.active.kid, "typ": APPLICATION, **header}
    encoded = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    parts = [json.dumps(headers).encode(), encoded]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    algorithm = jwt.get_algorithm_by_name(keys.active.algorithm)
    return (
        signed + b"." + base64.urlsafe_b64encode(algorithm.sign(signed, keys.active.private_key)).rstrip(b"=")
    ).decode()


def test_access_token_of_rfc_9068_names_type_and_client() -> None:
    keys = keyring()
    text = TokenSigner(keys, ISSUER, access_type="at+jwt").sign_access(claims())
    assert jwt.get_unverified_header(text)["typ"] == "at+jwt"
    signed = jwt.decode(text, options={"verify_signature": False})
    # RFC 9068 section 2.2.
    assert signed.keys() >= {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"}
    assert signed["client_id"] == signed["aud"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_access_token_has_the_documented_header_and_claims(algorithm: Algorithm) -> None:
    keys = keyring(algorithm)
    grant = Grant("authorization_code", "authzcode_1")
    family = TokenFamily(root_grant=grant, client_id="client_one", user_id="user_1", began_at=NOW, ends_at=NOW)
    token = AccessToken.issue(family, grant, id="acstok_1", at=NOW)
    text = TokenSigner(keys, ISSUER).sign_access(access_claims(token))
    assert jwt.get_unverified_header(text) == {"alg": algorithm, "kid": keys.active.kid, "typ": "JWT"}
    unchecked = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    public = keys.find(keys.active.kid)
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
def test_signed_claims_are_verified(algorithm: Algorithm) -> None:
    signer = TokenSigner(keyring(algorithm), ISSUER)
    token = signer.sign(claims(extra="x"), typ=APPLICATION)
    for audience in ("app_1", None):
        verified = signer.verify(token, typ=APPLICATION, audience=audience, at=NOW)
        assert verified == {**claims(extra="x"), "iss": ISSUER}


def test_token_is_valid_only_for_its_type_audience_issuer_and_time() -> None:
    keys = keyring()
    signer = TokenSigner(keys, ISSUER)
    token = signer.sign(claims(), typ=APPLICATION)
    expected: dict[str, Any] = {"typ": APPLICATION, "audience": "app_1", "at": NOW}
    assert signer.verify(token, **expected)
    for wrong in ({"typ": "JWT"}, {"audience": "app_2"}, {"audience": ""}, {"at": NOW + timedelta(hours=1)}):
        with pytest.raises(InvalidToken):
            signer.verify(token, **{**expected, **wrong})
    for stranger in (TokenSigner(keys, "https://other.example"), TokenSigner(keyring(), ISSUER)):
        with pytest.raises(InvalidToken):
            stranger.verify(token, **expected)


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
def test_token_with_unexpected_headers_is_refused(header: dict[str, Any]) -> None:
    keys = keyring()
    valid = {"iss": ISSUER, **claims()}
    assert TokenSigner(keys, ISSUER).verify(raw(keys, valid), typ=APPLICATION, audience="app_1", at=NOW)
    with pytest.raises(InvalidToken):
        TokenSigner(keys, ISSUER).verify(raw(keys, valid, **header), typ=APPLICATION, audience="app_1", at=NOW)


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
def test_token_with_missing_or_invalid_claims_is_refused(payload: Any) -> None:
    keys = keyring()
    with pytest.raises(InvalidToken):
        TokenSigner(keys, ISSUER).verify(raw(keys, payload), typ=APPLICATION, audience=None, at=NOW)


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "é.é.é", "a" * 1_000_000, "." * 4096])
def test_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        TokenSigner(keyring(), ISSUER).verify(text, typ="JWT", audience=None, at=NOW)


def test_token_that_outlives_its_key_is_not_signed() -> None:
    signer = TokenSigner(keyring(), ISSUER)
    now = int(NOW.timestamp())
    assert signer.sign(claims(exp=now + 24 * 3600), typ=APPLICATION)
    for wrong in ({"exp": now + 24 * 3600 + 1}, {"exp": None}, {"iat": 1.5}, {"aud": None}, {"jti": ""}):
        with pytest.raises(ValueError, match="token"):
            signer.sign(claims(**wrong), typ=APPLICATION)
