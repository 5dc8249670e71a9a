"""Sessions over HTTP, at two gateways: listing, ending, and races of many requests for one session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from services.embedded.demo import CLIENT_ID
from tests.stack import API, Login, Stack, code_of, eventually

Tokens = dict[str, Any]


def bearer(tokens: Tokens) -> dict[str, str]:
    return {"authorization": f"bearer {tokens['access_token']}"}


async def sessions(nest: Stack, tokens: Tokens, **headers: str) -> Any:
    response = await nest.call("list_sessions", {"user_id": tokens["user_id"]}, **(headers or bearer(tokens)))
    assert response.status_code == 200, response.text
    return response.json()


async def revoke(nest: Stack, tokens: Tokens, headers: dict[str, str] | None = None, **choice: Any) -> httpx.Response:
    return await nest.call("revoke_sessions", {"user_id": tokens["user_id"], **choice}, **(headers or bearer(tokens)))


def refreshing(tokens: Tokens) -> dict[str, str]:
    return {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}


async def refused_everywhere(nest: Stack, tokens: Tokens) -> None:
    """Wait until every gateway refuses the access token; fail after a second."""
    for url in nest.urls:

        async def refused(url: str = url) -> Any:
            response = await nest.http.post(
                f"{url}{API}/get_user", json={"user_id": tokens["user_id"]}, headers=bearer(tokens)
            )
            return response.json() if response.status_code == 401 else None

        body = await eventually(refused, within=1.0, what="the revocation")
        assert body["reasons"][0]["code"] == "token_revoked"


async def call_everywhere(nest: Stack, method: str, bodies: Sequence[Any]) -> list[httpx.Response]:
    """Call a method with all bodies in parallel, alternating between the gateways."""
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(timeout=30, limits=limits) as http:
        urls = [nest.urls[number % len(nest.urls)] for number in range(len(bodies))]
        return await asyncio.gather(
            *(http.post(f"{url}{API}/{method}", json=body) for url, body in zip(urls, bodies, strict=True))
        )


async def test_user_lists_sessions_and_sees_the_current_one(nest: Stack, email: str) -> None:
    login = Login(email)
    requested = await nest.call("send_magic_link", login.request(device={"platform": "windows"}))
    assert requested.status_code == 204
    code = code_of(await nest.mail(email), login)
    laptop = (await nest.call("authenticate_user", login.redemption(code))).json()
    phone = await nest.log_in(email)

    listed = await sessions(nest, phone)

    assert [session["current"] for session in listed] == [True, False]
    assert [session["device"] for session in listed] == [None, {"platform": "windows"}]
    assert {session["client_id"] for session in listed} == {CLIENT_ID}
    assert {session["place"]["network"] for session in listed} == {"127.0.0.0/24"}
    assert [session["current"] for session in await sessions(nest, laptop)] == [False, True]


async def test_log_out_ends_the_session_at_every_gateway(nest: Stack, email: str) -> None:
    phone, laptop = await nest.log_in(email), await nest.log_in(email)

    response = await revoke(nest, phone, which="current")

    assert (response.status_code, response.json()) == (200, {"ended": 1})
    again = await nest.call("authenticate_user", refreshing(phone))
    assert (again.status_code, again.json()["code"]) == (404, "authorization_not_found")
    await refused_everywhere(nest, phone)
    assert [session["current"] for session in await sessions(nest, laptop)] == [True]


async def test_user_ends_all_other_sessions(nest: Stack, email: str) -> None:
    devices = [await nest.log_in(email) for _ in range(3)]

    response = await revoke(nest, devices[1], which="others")

    assert response.json() == {"ended": 2}
    statuses = [(await nest.call("authenticate_user", refreshing(device))).status_code for device in devices]
    assert statuses == [404, 200, 404]


async def test_operator_ends_one_session_of_a_user(nest: Stack, email: str) -> None:
    phone, laptop = await nest.log_in(email), await nest.log_in(email)
    newest, oldest = await sessions(nest, phone, **nest.internal)
    assert (newest["current"], oldest["current"]) == (False, False)

    response = await revoke(nest, phone, nest.internal, session_id=oldest["id"])

    assert response.json() == {"ended": 1}
    await refused_everywhere(nest, phone)
    assert [session["id"] for session in await sessions(nest, laptop)] == [newest["id"]]
    unknown = await revoke(nest, phone, nest.internal, session_id=oldest["id"])
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    current = await revoke(nest, phone, nest.internal, which="current")
    assert (current.status_code, current.json()["code"]) == (400, "no_current_session")


async def test_user_cannot_list_or_end_sessions_of_another_user(nest: Stack, email: str) -> None:
    ada, eve = await nest.log_in(email), await nest.log_in(f"eve.{email}")
    [session] = await sessions(nest, ada)

    for method in ("list_sessions", "revoke_sessions"):
        for headers in (bearer(eve), {}):
            response = await nest.call(method, {"user_id": ada["user_id"]}, **headers)
            assert (response.status_code, response.json()["code"]) == (403, "access_denied")
    own = await revoke(nest, eve, session_id=session["id"])

    assert (own.status_code, own.json()["code"]) == (404, "not_found")
    assert len(await sessions(nest, ada)) == 1


async def test_invalid_choice_of_sessions_is_refused_and_ends_none(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)

    for choice in ({"session_id": "s", "which": "all"}, {"which": "every"}, {"session_id": {"$gt": ""}}):
        response = await revoke(nest, tokens, **choice)
        assert (response.status_code, response.json()["code"]) == (422, "validation_failed")

    assert len(await sessions(nest, tokens)) == 1


@pytest.mark.parametrize("attempts", [20, pytest.param(100, marks=pytest.mark.slow)])
async def test_parallel_refreshes_get_the_same_successor(nest: Stack, email: str, attempts: int) -> None:
    tokens = await nest.log_in(email)

    responses = await call_everywhere(nest, "authenticate_user", [refreshing(tokens)] * attempts)

    assert {response.status_code for response in responses} == {200}
    assert len({response.text for response in responses}) == 1
    assert len(await sessions(nest, responses[0].json())) == 1


@pytest.mark.parametrize("attempts", [10, pytest.param(50, marks=pytest.mark.slow)])
async def test_parallel_thieves_end_the_stolen_session_alone(nest: Stack, email: str, attempts: int) -> None:
    stolen, laptop = await nest.log_in(email), await nest.log_in(email)
    second = (await nest.call("authenticate_user", refreshing(stolen))).json()
    third = (await nest.call("authenticate_user", refreshing(second))).json()

    responses = await call_everywhere(nest, "authenticate_user", [refreshing(stolen)] * attempts)

    assert {(response.status_code, response.json()["code"]) for response in responses} == {(409, "token_used")}
    owner = await nest.call("authenticate_user", refreshing(third))
    assert (owner.status_code, owner.json()["code"]) == (404, "authorization_not_found")
    await refused_everywhere(nest, third)
    assert [session["current"] for session in await sessions(nest, laptop)] == [True]
    # The two logins sent two mails; the third and last warns of the theft.
    await nest.mail(email, count=3)
    assert len(nest.inbox.arrivals(email)) == 3


@pytest.mark.parametrize("rounds", [12, pytest.param(500, marks=pytest.mark.slow)])
async def test_no_older_token_works_after_a_log_out_that_races_refreshes(nest: Stack, email: str, rounds: int) -> None:
    async def refresh(tokens: dict[str, Any], *, after: float) -> list[httpx.Response]:
        await asyncio.sleep(after)
        return await call_everywhere(nest, "authenticate_user", [refreshing(tokens)] * 4)

    # Seconds by which the refreshes are sent before the log-out; negative if the log-out is sent first.
    refreshed_first, lead, step, was_first = 0, 0.02, 0.02, True
    for _ in range(rounds):
        before = await nest.log_in(email)
        refreshes = asyncio.create_task(refresh(before, after=-lead))
        await asyncio.sleep(lead)
        ended = await revoke(nest, before, nest.internal)
        # From here on no older token may work; requests that were sent before may still succeed.
        assert ended.status_code == 200
        late = await call_everywhere(nest, "authenticate_user", [refreshing(before)] * 2)
        assert not [response.text for response in late if response.status_code == 200]
        successors = [response.json() for response in await refreshes if response.status_code == 200]
        refreshed_first += bool(successors)
        # Adjusted so that now the refresh comes first and now the log-out, on a machine of any speed.
        step = step * 2 if bool(successors) == was_first else step / 2
        was_first = bool(successors)
        lead += -step if was_first else step
        for tokens in successors:
            response = await nest.call("authenticate_user", refreshing(tokens))
            assert (response.status_code, response.json()["code"]) == (404, "authorization_not_found")
        for tokens in (before, *successors[:1]):
            await refused_everywhere(nest, tokens)
    assert 0 < refreshed_first < rounds, "there was no race"
