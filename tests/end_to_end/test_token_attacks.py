"""Every forgery known (RFC 8725), most of them signed by Nest's own key: 401 in the right words, nothing fetched."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm
from pymongo import MongoClient

from services.auth.signing_keys.key_pairs import PrivateKey, generate, unseal_private_key
from services.auth.signing_keys.models import KeySet
from shared.documents import entity_of
from shared.sealing import Sealer
from shared.settings import parse_keys
from tests.stack import API, Stack, eventually

INVALID, MALFORMED = "invalid_token", "malformed_token"


@dataclass
class Forger:
    """Somebody who has got hold of Nest's own signing key, and of a true token."""

    kid: str
    private: PrivateKey
    header: dict[str, Any]
    claims: dict[str, Any]

    def token(self, header: Any = None, claims: Any = None) -> str:
        """A token that is really signed, whatever it says; ``...`` leaves a member out."""
        parts = [_written(self.header, header), _written(self.claims, claims)]
        signed = b".".join(map(_encoded, parts))
        signature = jwt.get_algorithm_by_name("ES256").sign(signed, self.private)
        return (signed + b"." + _encoded(signature)).decode()


def _written(usual: dict[str, Any], changed: Any) -> bytes:
    if isinstance(changed, bytes):
        return changed
    whole = {**usual, **(changed or {})}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


@pytest.fixture
async def forger(nest: Stack, email: str, mongo_client: MongoClient[dict[str, Any]]) -> Forger:
    """Opens the signing key as only auth can, and logs in."""
    tokens = await nest.log_in(email)
    database = mongo_client[nest.environment["NEST_DATABASE_PREFIX"] + "auth"]
    document = database["signing_keys"].find_one({})
    assert document is not None
    active = entity_of(KeySet, document).active
    private = unseal_private_key(active, Sealer(parse_keys(nest.environment["NEST_SEALING_KEYS"])))
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    header = jwt.get_unverified_header(tokens["access_token"])
    assert header == {"alg": "ES256", "kid": active.id, "typ": "JWT"}
    return Forger(active.id, private, header, claims)


@asynccontextmanager
async def lure() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that a careless verifier would fetch keys from, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def shown(nest: Stack, token: str, user_id: str) -> httpx.Response:
    """What each gateway says to a token; they say the same."""
    headers = {"authorization": f"bearer {token}"}
    answers = [
        await nest.http.post(f"{url}{API}/get_user", json={"user_id": user_id}, headers=headers) for url in nest.urls
    ]
    assert len({answer.status_code for answer in answers}) == 1
    return answers[0]


async def reason(nest: Stack, token: str, user_id: str) -> str:
    """Why a token is refused."""
    answer = await shown(nest, token, user_id)
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == "bearer"
    body = answer.json()
    assert body["code"] == "unauthorized"
    found: str = body["reasons"][0]["code"]
    return found


async def test_the_forger_could_if_the_gateway_let_them(nest: Stack, forger: Forger) -> None:
    assert (await shown(nest, forger.token(), forger.claims["sub"])).status_code == 200


HEADERS: list[dict[str, Any]] = [
    {"alg": "none"},
    {"alg": "HS256"},
    {"alg": "ES512"},
    {"alg": "EdDSA"},
    {"alg": ...},
    {"kid": ...},
    {"kid": "../../../../dev/null"},
    {"kid": "x' UNION SELECT 'key' --"},
    {"kid": "{{kid}}\u0000"},
    {"typ": ...},
    {"typ": "application+jwt"},
    {"typ": "deletion+jwt"},
    {"typ": "at+jwt"},
    {"crit": ["exp"]},
    {"crit": ["b64"], "b64": False},
    {"b64": False},
    {"zip": "DEF"},
    {"x5c": ["MIIB"]},
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
async def test_a_header_of_anothers_making_is_invalid(nest: Stack, forger: Forger, header: dict[str, Any]) -> None:
    # One that says it has no payload is not even looked into.
    detached = "b64" in header
    assert await reason(nest, forger.token(header), forger.claims["sub"]) == (MALFORMED if detached else INVALID)


@pytest.mark.parametrize("kid", [{"$gt": ""}, ["a"], 1, None, True], ids=str)
async def test_a_kid_that_is_no_text_is_refused(nest: Stack, forger: Forger, kid: Any) -> None:
    assert await reason(nest, forger.token({"kid": kid}), forger.claims["sub"]) in (INVALID, MALFORMED)


CLAIMS: list[dict[str, Any]] = [
    *({name: ...} for name in ("exp", "iat", "iss", "sub", "aud", "jti")),
    {"aud": "client_of_somebody_else"},
    {"aud": ["client_000000C2kdCzNlbL1BqR5FeMatItU"]},
    {"aud": {"$gt": ""}},
    {"iss": "https://evil.example"},
    {"sub": {"$gt": ""}},
    {"jti": {"$gt": ""}},
    {"exp": "9999999999"},
    {"exp": 1e999},
    {"iat": 9999999999},
    {"nbf": 9999999999},
]


@pytest.mark.parametrize("claims", CLAIMS, ids=str)
async def test_claims_that_lack_something_or_say_it_otherwise_are_invalid(
    nest: Stack, forger: Forger, claims: dict[str, Any]
) -> None:
    assert await reason(nest, forger.token(claims=claims), forger.claims["sub"]) in (INVALID, MALFORMED)


async def test_time_and_version_have_reasons_of_their_own(nest: Stack, forger: Forger) -> None:
    user = forger.claims["sub"]
    assert await reason(nest, forger.token(claims={"exp": int(time.time()) - 1}), user) == "token_expired"
    assert await reason(nest, forger.token(claims={"v": "2"}), user) == "invalid_token_version"
    assert await reason(nest, forger.token(claims={"v": ...}), user) == "invalid_token_version"


async def test_the_public_key_is_no_shared_secret(nest: Stack, forger: Forger) -> None:
    public = forger.private.public_key()
    secrets = [public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo) for form in (Encoding.PEM, Encoding.DER)]
    secrets.append((await nest.http.get("/.well-known/jwks.json")).content)
    for secret in secrets:
        parts = [json.dumps(part).encode() for part in ({**forger.header, "alg": "HS256"}, forger.claims)]
        signed = b".".join(map(_encoded, parts))
        token = signed + b"." + _encoded(hmac.new(secret, signed, hashlib.sha256).digest())
        assert await reason(nest, token.decode(), forger.claims["sub"]) == INVALID


async def test_no_key_in_a_header_or_behind_its_address_is_used(nest: Stack, forger: Forger) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    jwk = ECAlgorithm.to_jwk(own.public_key(), as_dict=True)
    async with lure() as (url, asked):
        for extra in (
            {"jwk": {**jwk, "kid": "mine"}, "kid": "mine"},
            {"jku": f"{url}/jwks.json", "kid": "mine"},
            {"x5u": f"{url}/cert.pem", "kid": "mine"},
            {"kid": f"{url}/jwks.json"},
        ):
            for private in (own, forger.private):
                thief = Forger("mine", private, forger.header, forger.claims)
                assert await reason(nest, thief.token(extra), forger.claims["sub"]) == INVALID
        assert asked == []


async def test_what_is_large_or_deep_or_no_token_is_malformed(nest: Stack, forger: Forger) -> None:
    user = forger.claims["sub"]
    for token in (
        "a",
        "a.b",
        "a.b.c.d",
        "a" * 12_000,
        forger.token(claims={"more": "x" * 8_000}),
        forger.token(claims=b"[" * 1_500 + b"]" * 1_500),
        forger.token(header=b"[" * 1_000 + b"]" * 1_000),
        forger.token(header=b"\xff"),
    ):
        assert await reason(nest, token, user) in (INVALID, MALFORMED)


async def test_a_megabyte_does_not_even_become_a_token(nest: Stack, forger: Forger) -> None:
    for token in (forger.token(claims={"more": "x" * 1_000_000}), forger.token(claims=b'{"a":' * 200_000)):
        try:
            answer = await shown(nest, token, forger.claims["sub"])
        except httpx.TransportError:
            # The server may have ended the connection while we were still writing.
            continue
        assert answer.status_code in (400, 401, 431)
    assert (await shown(nest, forger.token(), forger.claims["sub"])).status_code == 200


async def test_a_claim_that_comes_twice_is_invalid(nest: Stack, forger: Forger) -> None:
    claims = json.dumps({name: value for name, value in forger.claims.items() if name != "aud"})[1:]
    client = forger.claims["aud"]
    for first, last in (("evil", client), (client, "evil"), (client, client)):
        twice = f'{{"aud": "{first}", "aud": "{last}", {claims}'.encode()
        assert await reason(nest, forger.token(claims=twice), forger.claims["sub"]) == INVALID


async def test_two_authorization_headers_are_no_request(nest: Stack, forger: Forger) -> None:
    good, evil = f"bearer {forger.token()}", "bearer evil"
    for pair in ((good, evil), (evil, good), (good, good), (nest.internal["authorization"], good)):
        headers = [("authorization", value) for value in pair]
        answer = await nest.http.post(f"{API}/get_user", json={"user_id": forger.claims["sub"]}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    joined = {"authorization": f"{good}, {evil}"}
    answer = await nest.http.post(f"{API}/get_user", json={"user_id": forger.claims["sub"]}, headers=joined)
    assert answer.status_code == 401


async def test_a_key_that_was_withdrawn_and_one_that_was_never_announced_sign_nothing(
    nest: Stack, forger: Forger
) -> None:
    sealer = Sealer({"k": bytes(32)})
    unheard = generate("ES256", sealer, at=datetime.now(UTC))
    stranger = Forger(unheard.id, unseal_private_key(unheard, sealer), forger.header, forger.claims)
    assert await reason(nest, stranger.token({"kid": unheard.id}), forger.claims["sub"]) == INVALID

    rotated = await nest.call("rotate_signing_keys", {"emergency": True}, **nest.internal)
    assert rotated.status_code == 200

    async def gone() -> bool:
        answers = [await nest.http.get(f"{url}/.well-known/jwks.json") for url in nest.urls]
        return all(forger.kid not in answer.text for answer in answers)

    await eventually(gone)
    assert await reason(nest, forger.token(), forger.claims["sub"]) == INVALID
