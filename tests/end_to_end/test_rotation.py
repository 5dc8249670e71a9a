"""Keys change while people log in, refresh and call, over two gateways and two instances of auth."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest

from services.embedded.demo import CLIENT_ID
from tests.stack import API, Login, Stack, eventually, running_stack

PEOPLE = 32
LEAD_SECONDS = 1
_COUNT = itertools.count()


@pytest.fixture(scope="module")
async def crowded(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Stack]:
    """A Nest with two gateways and two instances of auth, whose keys are published a second before they sign."""
    prefix = unique()
    async with running_stack(
        tmp_path_factory.mktemp("crowded"),
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        gateways=2,
        instances={"auth": 2},
        settings={"NEST_SIGNING_KEY_LEAD_SECONDS": str(LEAD_SECONDS)},
    ) as stack:
        yield stack


@dataclass
class Call:
    """A call that was made with an access token."""

    status: int
    kid: str
    at: float
    text: str


@dataclass
class Crowd:
    """People who log in, refresh and look themselves up, again and again, at both gateways."""

    nest: Stack
    http: httpx.AsyncClient
    stopping: bool = False
    calls: list[Call] = field(default_factory=list)
    logins: int = 0
    refreshes: int = 0
    newest: list[str] = field(default_factory=list)
    turn: Any = field(default_factory=itertools.count)

    async def post(self, method: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        url = self.nest.urls[next(self.turn) % len(self.nest.urls)]
        return await self.http.post(f"{url}{API}/{method}", json=body, headers=headers)

    async def authenticated(self, body: dict[str, Any]) -> dict[str, Any]:
        """The tokens; an answer that says to come back is taken at its word."""
        for _ in range(50):
            answer = await self.post("authenticate_user", body)
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.05)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        self.newest.append(kid_of(tokens["access_token"]))
        return tokens

    def all_have(self, kid: str) -> bool:
        """Whether the newest tokens, two for each of them, were signed with this key."""
        return set(self.newest[-2 * PEOPLE :]) == {kid}

    async def look(self, tokens: dict[str, Any]) -> None:
        began = time.monotonic()
        answer = await self.post(
            "get_user", {"user_id": tokens["user_id"]}, authorization=f"bearer {tokens['access_token']}"
        )
        self.calls.append(Call(answer.status_code, kid_of(tokens["access_token"]), began, answer.text))

    async def person(self) -> None:
        email = f"crowd{next(_COUNT)}@example.com"
        while not self.stopping:
            login = Login(email)
            tokens = await self.authenticated(login.redemption(await self.nest.code(login)))
            self.logins += 1
            for _ in range(6):
                await self.look(tokens)
                body = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
                tokens = await self.authenticated(body)
                self.refreshes += 1
                await self.look(tokens)
                if self.stopping:
                    break


@asynccontextmanager
async def crowd(nest: Stack) -> AsyncIterator[Crowd]:
    """A crowd at work for as long as the block lasts; whatever one of them met fails the test."""
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=PEOPLE)) as http:
        people = Crowd(nest, http)
        tasks = [asyncio.create_task(people.person()) for _ in range(PEOPLE)]
        try:
            await eventually(lambda: people.logins >= PEOPLE or _raised(tasks), within=60, what="everybody's login")
            yield people
        finally:
            people.stopping = True
            await asyncio.gather(*tasks)


def _raised(tasks: list[asyncio.Task[None]]) -> bool:
    return any(task.done() for task in tasks)


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


async def keys(nest: Stack) -> list[dict[str, Any]]:
    answer = await nest.call("list_signing_keys", {}, **nest.internal)
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["keys"]
    return listed


async def active(nest: Stack) -> str:
    [kid] = [key["kid"] for key in await keys(nest) if key["state"] == "active"]
    return str(kid)


async def jwks(nest: Stack, url: str) -> set[str]:
    answer = await nest.http.get(f"{url}/.well-known/jwks.json")
    return {key["kid"] for key in answer.json()["keys"]}


async def rotate(nest: Stack, **how: Any) -> list[dict[str, Any]]:
    answer = await nest.call("rotate_signing_keys", how, **nest.internal)
    assert answer.status_code == 200, answer.text
    rotated: list[dict[str, Any]] = answer.json()["keys"]
    return rotated


async def test_a_rotation_under_load_refuses_nobody(crowded: Stack) -> None:
    old = await active(crowded)
    async with crowd(crowded) as people:
        rotated = await rotate(crowded)
        [new] = [key["kid"] for key in rotated if key["state"] == "published"]
        assert set(people.newest) == {old}

        async def signs() -> bool:
            return await active(crowded) == new

        await eventually(signs, within=60)
        await eventually(lambda: people.all_have(new), within=60, what="tokens of the new key alone")

    assert set(people.newest) == {old, new}
    refused = [call for call in people.calls if call.status != 200]
    assert not refused, refused[:3]
    assert len(people.calls) > 4 * PEOPLE
    for url in crowded.urls:
        assert {old, new} <= await jwks(crowded, url)


async def test_a_leaked_key_is_refused_everywhere_within_a_second(crowded: Stack) -> None:
    tokens = await crowded.log_in("watcher@example.com")
    old = kid_of(tokens["access_token"])
    assert old == await active(crowded)
    began = time.monotonic()
    await rotate(crowded, emergency=True)
    while {await _status(crowded.http, url, tokens) for url in crowded.urls} != {401}:
        assert time.monotonic() - began < 1.0
    for url in crowded.urls:
        assert old not in await jwks(crowded, url)
    [only] = await keys(crowded)
    assert only["kid"] != old


async def test_after_a_leak_under_load_everybody_goes_on_with_their_refresh_tokens(crowded: Stack) -> None:
    old = await active(crowded)
    async with crowd(crowded) as people:
        await rotate(crowded, emergency=True)

        async def withdrawn() -> bool:
            return not any([old in await jwks(crowded, url) for url in crowded.urls])

        await eventually(withdrawn, within=60)
        since = time.monotonic()
        new = await active(crowded)
        await eventually(lambda: people.all_have(new), within=60, what="tokens of the new key alone")

    # Had a single refresh failed, so would have the crowd.
    assert set(people.newest) == {old, new}
    for call in people.calls:
        if call.status == 200:
            assert call.kid == new or call.at < since
        else:
            assert (call.status, call.kid) == (401, old), call
            assert '"invalid_token"' in call.text


async def _status(http: httpx.AsyncClient, url: str, tokens: dict[str, Any]) -> int:
    headers = {"authorization": f"bearer {tokens['access_token']}"}
    answer = await http.post(f"{url}{API}/get_user", json={"user_id": tokens["user_id"]}, headers=headers)
    return answer.status_code
