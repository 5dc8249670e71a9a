"""Forged access tokens (RFC 8725), most of them signed with Nest's own key: 401, and no key is fetched."""

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

from services.auth.signing_keys.key_pairs import PrivateKey, generate, unseal_private_key
from services.auth.signing_keys.models import KeySet
from shared.documents import entity_of
from shared.sealing import Sealer
from tests.end_to_end.flows import Mongo, database, sealer_of
from tests.stack import API, Stack, eventually

INVALID, MALFORMED = "invalid_token", "malformed_token"


@dataclass
class Forger:
    """An attacker with Nest's signing key and a valid token."""

    kid: str
    private: PrivateKey
    header: dict[str, Any]
    claims: dict[str, Any]

    def token(self, header: Any = None, claims: Any = None) -> str:
        """Sign a token with changed header and claims; the value ``...`` removes a member, bytes replace all."""
        parts = [_changed(self.header, header), _changed(self.claims, claims)]
        signed = b".".join(map(_encoded, parts))
        signature = jwt.get_algorithm_by_name("ES256").sign(signed, self.private)
        return (signed + b"." + _encoded(signature)).decode()


def _changed(valid: dict[str, Any], changes: Any) -> bytes:
    if isinstance(changes, bytes):
        return changes
    whole = {**valid, **(changes or {})}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def _encoded(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


@pytest.fixture(scope="module")
async def forger(nest: Stack, mongo_client: Mongo) -> Forger:
    """A forger who has read the signing key as only auth can; valid until a test rotates the keys."""
    return await new_forger(nest, mongo_client)


async def new_forger(nest: Stack, mongo_client: Mongo) -> Forger:
    tokens = await nest.log_in("forger@example.com")
    document = database(nest, mongo_client, "auth")["signing_keys"].find_one({})
    assert document is not None
    active = entity_of(KeySet, document).active
    private = unseal_private_key(active, sealer_of(nest))
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    header = jwt.get_unverified_header(tokens["access_token"])
    assert header == {"alg": "ES256", "kid": active.id, "typ": "JWT"}
    return Forger(active.id, private, header, claims)


@asynccontextmanager
async def key_server() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server from which a careless verifier would fetch keys; yields its URL and the requests."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests


async def get_user_of_each(nest: Stack, token: str, user_id: str) -> list[httpx.Response]:
    """Call every gateway with a token."""
    headers = {"authorization": f"bearer {token}"}
    return [
        await nest.http.post(f"{url}{API}/get_user", json={"user_id": user_id}, headers=headers) for url in nest.urls
    ]


async def get_user(nest: Stack, token: str, user_id: str) -> httpx.Response:
    """Call every gateway with a token; assert that their responses have the same status, and return one."""
    responses = await get_user_of_each(nest, token, user_id)
    assert len({response.status_code for response in responses}) == 1
    return responses[0]


async def reason(nest: Stack, token: str, user_id: str) -> str:
    """Return the reason of the refusal of a token."""
    response = await get_user(nest, token, user_id)
    assert response.status_code == 401, response.text
    assert response.headers["www-authenticate"] == "bearer"
    body = response.json()
    assert body["code"] == "unauthorized"
    found: str = body["reasons"][0]["code"]
    return found


async def test_unchanged_token_of_the_forger_is_accepted(nest: Stack, forger: Forger) -> None:
    assert (await get_user(nest, forger.token(), forger.claims["sub"])).status_code == 200


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
    {"typ": "phone+jwt"},
    {"typ": "dpop+jwt"},
    {"crit": ["exp"]},
    {"crit": ["b64"], "b64": False},
    {"b64": False},
    {"zip": "DEF"},
    {"x5c": ["MIIB"]},
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
async def test_changed_header_is_invalid(nest: Stack, forger: Forger, header: dict[str, Any]) -> None:
    # A token with a detached payload (RFC 7797) is not parsed.
    detached = "b64" in header
    assert await reason(nest, forger.token(header), forger.claims["sub"]) == (MALFORMED if detached else INVALID)


@pytest.mark.parametrize("kid", [{"$gt": ""}, ["a"], 1, None, True], ids=str)
async def test_kid_that_is_not_a_string_is_refused(nest: Stack, forger: Forger, kid: Any) -> None:
    assert await reason(nest, forger.token({"kid": kid}), forger.claims["sub"]) in (INVALID, MALFORMED)


CLAIMS: list[dict[str, Any]] = [
    *({name: ...} for name in ("exp", "iat", "iss", "sub", "aud", "jti")),
    {"aud": "client_of_another_app"},
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
async def test_missing_or_changed_claims_are_invalid(nest: Stack, forger: Forger, claims: dict[str, Any]) -> None:
    assert await reason(nest, forger.token(claims=claims), forger.claims["sub"]) in (INVALID, MALFORMED)


async def test_expiry_and_version_have_their_own_reasons(nest: Stack, forger: Forger) -> None:
    user = forger.claims["sub"]
    assert await reason(nest, forger.token(claims={"exp": int(time.time()) - 1}), user) == "token_expired"
    assert await reason(nest, forger.token(claims={"v": "2"}), user) == "invalid_token_version"
    assert await reason(nest, forger.token(claims={"v": ...}), user) == "invalid_token_version"


async def test_public_key_is_not_accepted_as_a_shared_secret(nest: Stack, forger: Forger) -> None:
    public = forger.private.public_key()
    secrets = [public.public_bytes(form, PublicFormat.SubjectPublicKeyInfo) for form in (Encoding.PEM, Encoding.DER)]
    secrets.append((await nest.http.get("/.well-known/jwks.json")).content)
    for secret in secrets:
        parts = [json.dumps(part).encode() for part in ({**forger.header, "alg": "HS256"}, forger.claims)]
        signed = b".".join(map(_encoded, parts))
        token = signed + b"." + _encoded(hmac.new(secret, signed, hashlib.sha256).digest())
        assert await reason(nest, token.decode(), forger.claims["sub"]) == INVALID


async def test_key_or_key_url_in_a_header_is_not_used(nest: Stack, forger: Forger) -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    jwk = ECAlgorithm.to_jwk(own.public_key(), as_dict=True)
    async with key_server() as (url, requests):
        for extra in (
            {"jwk": {**jwk, "kid": "mine"}, "kid": "mine"},
            {"jku": f"{url}/jwks.json", "kid": "mine"},
            {"x5u": f"{url}/cert.pem", "kid": "mine"},
            {"kid": f"{url}/jwks.json"},
        ):
            for private in (own, forger.private):
                thief = Forger("mine", private, forger.header, forger.claims)
                assert await reason(nest, thief.token(extra), forger.claims["sub"]) == INVALID
        assert requests == []


async def test_large_deep_or_malformed_token_is_refused(nest: Stack, forger: Forger) -> None:
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


async def test_token_of_a_megabyte_is_refused(nest: Stack, forger: Forger) -> None:
    for token in (forger.token(claims={"more": "x" * 1_000_000}), forger.token(claims=b'{"a":' * 200_000)):
        try:
            response = await get_user(nest, token, forger.claims["sub"])
        except httpx.TransportError:
            # The server may close the connection before the request is sent completely.
            continue
        assert response.status_code in (400, 401, 431)
    assert (await get_user(nest, forger.token(), forger.claims["sub"])).status_code == 200


async def test_repeated_claim_is_invalid(nest: Stack, forger: Forger) -> None:
    claims = json.dumps({name: value for name, value in forger.claims.items() if name != "aud"})[1:]
    client = forger.claims["aud"]
    for first, last in (("evil", client), (client, "evil"), (client, client)):
        twice = f'{{"aud": "{first}", "aud": "{last}", {claims}'.encode()
        assert await reason(nest, forger.token(claims=twice), forger.claims["sub"]) == INVALID


async def test_two_authorization_headers_are_refused(nest: Stack, forger: Forger) -> None:
    good, evil = f"bearer {forger.token()}", "bearer evil"
    for pair in ((good, evil), (evil, good), (good, good), (nest.internal["authorization"], good)):
        headers = [("authorization", value) for value in pair]
        response = await nest.http.post(f"{API}/get_user", json={"user_id": forger.claims["sub"]}, headers=headers)
        assert (response.status_code, response.json()["code"]) == (400, "malformed_request")
    joined = {"authorization": f"{good}, {evil}"}
    response = await nest.http.post(f"{API}/get_user", json={"user_id": forger.claims["sub"]}, headers=joined)
    assert response.status_code == 401


async def test_unpublished_and_withdrawn_keys_sign_no_valid_token(nest: Stack, mongo_client: Mongo) -> None:
    forger = await new_forger(nest, mongo_client)
    sealer = Sealer({"k": bytes(32)})
    unpublished = generate("ES256", sealer, at=datetime.now(UTC))
    stranger = Forger(unpublished.id, unseal_private_key(unpublished, sealer), forger.header, forger.claims)
    assert await reason(nest, stranger.token({"kid": unpublished.id}), forger.claims["sub"]) == INVALID

    # The last test, since the rotation invalidates the shared forger.
    rotated = await nest.call("rotate_signing_keys", {"emergency": True}, **nest.internal)
    assert rotated.status_code == 200

    async def withdrawn() -> bool:
        responses = [await nest.http.get(f"{url}/.well-known/jwks.json") for url in nest.urls]
        return all(forger.kid not in response.text for response in responses)

    await eventually(withdrawn, what="withdrawal of the key")
    assert await reason(nest, forger.token(), forger.claims["sub"]) == INVALID
