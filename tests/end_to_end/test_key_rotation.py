"""Rotation of signing keys under load, over two gateways and two instances of auth, and every signing algorithm."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import jwt
import pytest

from services.embedded.demo import CLIENT_ID
from tests.stack import API, Login, RunNest, Stack, eventually

LEAD_SECONDS: Final = 1
PEOPLE: Final = [8, pytest.param(32, marks=pytest.mark.slow)]
_COUNT = itertools.count()


@pytest.fixture(scope="module")
async def rotating(run_nest: RunNest) -> AsyncIterator[Stack]:
    """A Nest with two gateways and two instances of auth, which publishes keys a second before they sign."""
    settings = {"NEST_SIGNING_KEY_LEAD_SECONDS": str(LEAD_SECONDS), "NEST_SIGNING_ALGORITHM": "ES512"}
    async with run_nest(gateways=2, instances={"auth": 2}, settings=settings) as stack:
        yield stack


@dataclass
class Call:
    """A call with an access token.

    Attributes:
        status: of the response.
        kid: the key that signed the token.
        at: when it was sent, monotonic seconds.
        text: body of the response.
    """

    status: int
    kid: str
    at: float
    text: str


@dataclass
class Crowd:
    """People who log in, refresh and read their profile, again and again, at both gateways."""

    nest: Stack
    http: httpx.AsyncClient
    size: int
    stopping: bool = False
    calls: list[Call] = field(default_factory=list)
    logins: int = 0
    kids: list[str] = field(default_factory=list)
    turn: Any = field(default_factory=itertools.count)

    async def post(self, method: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        url = self.nest.urls[next(self.turn) % len(self.nest.urls)]
        return await self.http.post(f"{url}{API}/{method}", json=body, headers=headers)

    async def authenticate(self, body: dict[str, Any]) -> dict[str, Any]:
        """Get tokens; 503 is retried, any other refusal fails the test."""
        for _ in range(50):
            response = await self.post("authenticate_user", body)
            if response.status_code != 503:
                break
            await asyncio.sleep(0.05)
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        self.kids.append(kid_of(tokens["access_token"]))
        return tokens

    def all_have(self, kid: str) -> bool:
        """Whether the newest tokens, two per person, were signed with this key."""
        return set(self.kids[-2 * self.size :]) == {kid}

    async def read_profile(self, tokens: dict[str, Any]) -> None:
        sent = time.monotonic()
        response = await self.post(
            "get_user", {"user_id": tokens["user_id"]}, authorization=f"bearer {tokens['access_token']}"
        )
        self.calls.append(Call(response.status_code, kid_of(tokens["access_token"]), sent, response.text))

    async def person(self) -> None:
        email = f"crowd{next(_COUNT)}@example.com"
        while not self.stopping:
            login = Login(email)
            tokens = await self.authenticate(login.redemption(await self.nest.code(login)))
            self.logins += 1
            for _ in range(6):
                await self.read_profile(tokens)
                body = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
                tokens = await self.authenticate(body)
                await self.read_profile(tokens)
                if self.stopping:
                    break


@asynccontextmanager
async def crowd(nest: Stack, size: int) -> AsyncIterator[Crowd]:
    """Run a crowd while the context is entered; it ends with the first error of any person."""
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=size)) as http:
        people = Crowd(nest, http, size)
        tasks = [asyncio.create_task(people.person()) for _ in range(size)]
        try:
            await eventually(
                lambda: people.logins >= size or any(task.done() for task in tasks), what="a login of each person"
            )
            yield people
        finally:
            people.stopping = True
            await asyncio.gather(*tasks)


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


async def keys(nest: Stack) -> list[dict[str, Any]]:
    response = await nest.call("list_signing_keys", {}, **nest.internal)
    assert response.status_code == 200, response.text
    listed: list[dict[str, Any]] = response.json()["keys"]
    return listed


async def active(nest: Stack) -> str:
    [kid] = [key["kid"] for key in await keys(nest) if key["state"] == "active"]
    return str(kid)


async def published(nest: Stack, url: str) -> set[str]:
    response = await nest.http.get(f"{url}/.well-known/jwks.json")
    return {key["kid"] for key in response.json()["keys"]}


async def rotate(nest: Stack, **options: Any) -> list[dict[str, Any]]:
    response = await nest.call("rotate_signing_keys", options, **nest.internal)
    assert response.status_code == 200, response.text
    rotated: list[dict[str, Any]] = response.json()["keys"]
    return rotated


@pytest.mark.parametrize("size", PEOPLE)
async def test_rotation_under_load_refuses_no_token(rotating: Stack, size: int) -> None:
    old = await active(rotating)
    async with crowd(rotating, size) as people:
        rotated = await rotate(rotating)
        [new] = [key["kid"] for key in rotated if key["state"] == "published"]
        assert set(people.kids) == {old}

        async def signs() -> bool:
            return await active(rotating) == new

        await eventually(signs, what="the new key")
        await eventually(lambda: people.all_have(new), what="tokens of the new key alone")

    assert set(people.kids) == {old, new}
    refused = [call for call in people.calls if call.status != 200]
    assert not refused, refused[:3]
    assert len(people.calls) > 4 * size
    for url in rotating.urls:
        assert {old, new} <= await published(rotating, url)


async def test_leaked_key_is_refused_everywhere_within_a_second(rotating: Stack) -> None:
    tokens = await rotating.log_in("watcher@example.com")
    old = kid_of(tokens["access_token"])
    assert old == await active(rotating)

    async def refused() -> bool:
        return {await _status(rotating.http, url, tokens) for url in rotating.urls} == {401}

    await rotate(rotating, emergency=True)
    await eventually(refused, within=1.0, what="refusal of the old key")
    for url in rotating.urls:
        assert old not in await published(rotating, url)
    [only] = await keys(rotating)
    assert only["kid"] != old


@pytest.mark.parametrize("size", PEOPLE)
async def test_refresh_tokens_stay_valid_after_a_leak_under_load(rotating: Stack, size: int) -> None:
    old = await active(rotating)
    async with crowd(rotating, size) as people:
        await rotate(rotating, emergency=True)

        async def withdrawn() -> bool:
            return not any([old in await published(rotating, url) for url in rotating.urls])

        await eventually(withdrawn, what="withdrawal of the old key")
        since = time.monotonic()
        new = await active(rotating)
        await eventually(lambda: people.all_have(new), what="tokens of the new key alone")

    # A failed refresh would have failed the crowd.
    assert set(people.kids) == {old, new}
    for call in people.calls:
        if call.status == 200:
            assert call.kid == new or call.at < since
        else:
            assert (call.status, call.kid) == (401, old), call
            assert '"invalid_token"' in call.text


async def test_es512_tokens_are_verified_everywhere(rotating: Stack) -> None:
    await _log_in_and_verify(rotating, "ES512", "P-521")


async def test_eddsa_tokens_are_verified_everywhere(separate: Stack) -> None:
    await _log_in_and_verify(separate, "EdDSA", "Ed25519")


async def _log_in_and_verify(nest: Stack, algorithm: str, curve: str) -> None:
    """Log in, call the API with the access token, and verify it as a resource server does (RFC 7517)."""
    tokens = await nest.log_in("algorithm@example.com")
    token, user_id = tokens["access_token"], tokens["user_id"]
    user = await nest.call("get_user", {"user_id": user_id}, authorization=f"bearer {token}")
    assert user.status_code == 200
    configuration = (await nest.http.get("/.well-known/openid-configuration")).json()
    assert algorithm in configuration["id_token_signing_alg_values_supported"]
    listed = (await nest.http.get("/.well-known/jwks.json")).json()["keys"]
    [jwk] = [key for key in listed if key["kid"] == kid_of(token)]
    assert (jwk["alg"], jwk["crv"], jwk["use"]) == (algorithm, curve, "sig")
    assert "d" not in jwk
    claims = jwt.decode(
        token, jwt.PyJWK(jwk), algorithms=[algorithm], audience=CLIENT_ID, issuer=configuration["issuer"]
    )
    assert claims["sub"] == user_id


async def _status(http: httpx.AsyncClient, url: str, tokens: dict[str, Any]) -> int:
    headers = {"authorization": f"bearer {tokens['access_token']}"}
    response = await http.post(f"{url}{API}/get_user", json={"user_id": tokens["user_id"]}, headers=headers)
    return response.status_code
