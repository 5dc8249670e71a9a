"""Somebody sees where they are logged in, and logs out there: over HTTP, at two gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from services.embedded.demo import CLIENT_ID
from tests.stack import API, Login, Stack, eventually

Tokens = dict[str, Any]


def bearer(tokens: Tokens) -> dict[str, str]:
    return {"authorization": f"bearer {tokens['access_token']}"}


async def sessions(nest: Stack, tokens: Tokens, **headers: str) -> Any:
    answer = await nest.call("list_sessions", {"user_id": tokens["user_id"]}, **(headers or bearer(tokens)))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def revoke(nest: Stack, tokens: Tokens, headers: dict[str, str] | None = None, **chosen: Any) -> httpx.Response:
    return await nest.call("revoke_sessions", {"user_id": tokens["user_id"], **chosen}, **(headers or bearer(tokens)))


def refreshing(tokens: Tokens) -> dict[str, str]:
    return {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}


async def refused_everywhere(nest: Stack, tokens: Tokens) -> None:
    """Every gateway refuses the access token within a second."""
    for url in nest.urls:

        async def refused(url: str = url) -> Any:
            answer = await nest.http.post(
                f"{url}{API}/get_user", json={"user_id": tokens["user_id"]}, headers=bearer(tokens)
            )
            return answer.json() if answer.status_code == 401 else None

        body = await eventually(refused, within=1.0, what="the revocation")
        assert body["reasons"][0]["code"] == "token_revoked"


async def test_a_user_sees_her_sessions_and_which_is_this_one(nest: Stack, email: str) -> None:
    login = Login(email)
    ordered = await nest.call("send_magic_link", login.order(device={"platform": "windows"}))
    assert ordered.status_code == 204
    mail = await nest.mail(email)
    code = mail.links[0].split("code=")[1].split("&")[0]
    laptop = (await nest.call("authenticate_user", login.redemption(code))).json()
    phone = await nest.log_in(email)

    seen = await sessions(nest, phone)

    assert [session["current"] for session in seen] == [True, False]
    assert [session["device"] for session in seen] == [None, {"platform": "windows"}]
    assert {session["client_id"] for session in seen} == {CLIENT_ID}
    assert {session["place"]["network"] for session in seen} == {"127.0.0.0/24"}
    assert [session["current"] for session in await sessions(nest, laptop)] == [False, True]


async def test_logging_out_ends_this_session_at_every_gateway(nest: Stack, email: str) -> None:
    phone, laptop = await nest.log_in(email), await nest.log_in(email)

    answer = await revoke(nest, phone, which="current")

    assert (answer.status_code, answer.json()) == (200, {"ended": 1})
    again = await nest.call("authenticate_user", refreshing(phone))
    assert (again.status_code, again.json()["code"]) == (404, "authorization_not_found")
    await refused_everywhere(nest, phone)
    assert [session["current"] for session in await sessions(nest, laptop)] == [True]


async def test_all_other_sessions_are_ended(nest: Stack, email: str) -> None:
    devices = [await nest.log_in(email) for _ in range(3)]

    answer = await revoke(nest, devices[1], which="others")

    assert answer.json() == {"ended": 2}
    statuses = [(await nest.call("authenticate_user", refreshing(device))).status_code for device in devices]
    assert statuses == [404, 200, 404]


async def test_an_operator_ends_one_session_of_a_user(nest: Stack, email: str) -> None:
    phone, laptop = await nest.log_in(email), await nest.log_in(email)
    newest, oldest = await sessions(nest, phone, **nest.internal)
    assert (newest["current"], oldest["current"]) == (False, False)

    answer = await revoke(nest, phone, nest.internal, session_id=oldest["id"])

    assert answer.json() == {"ended": 1}
    await refused_everywhere(nest, phone)
    assert [session["id"] for session in await sessions(nest, laptop)] == [newest["id"]]
    unknown = await revoke(nest, phone, nest.internal, session_id=oldest["id"])
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    current = await revoke(nest, phone, nest.internal, which="current")
    assert (current.status_code, current.json()["code"]) == (400, "no_current_session")


@pytest.mark.parametrize("method", ["list_sessions", "revoke_sessions"])
async def test_nobody_sees_or_ends_the_sessions_of_another_user(nest: Stack, email: str, method: str) -> None:
    ada, eve = await nest.log_in(email), await nest.log_in(f"eve.{email}")
    [session] = await sessions(nest, ada)

    others = await nest.call(method, {"user_id": ada["user_id"]}, **bearer(eve))
    nobody = await nest.call(method, {"user_id": ada["user_id"]})
    own = await revoke(nest, eve, session_id=session["id"])

    assert [(answer.status_code, answer.json()["code"]) for answer in (others, nobody)] == [(403, "access_denied")] * 2
    assert (own.status_code, own.json()["code"]) == (404, "not_found")
    assert len(await sessions(nest, ada)) == 1


@pytest.mark.parametrize(
    "chosen", [{"session_id": "s", "which": "all"}, {"which": "every"}, {"session_id": {"$gt": ""}}]
)
async def test_a_choice_that_is_none_is_told(nest: Stack, email: str, chosen: dict[str, Any]) -> None:
    tokens = await nest.log_in(email)

    answer = await revoke(nest, tokens, **chosen)

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert len(await sessions(nest, tokens)) == 1


async def test_a_code_redeemed_a_hundred_times_over_two_gateways_makes_one_session(nest: Stack, email: str) -> None:
    await redeem_in_parallel(nest, email)


@pytest.mark.slow
async def test_no_code_of_fifty_makes_more_than_one_session(nest: Stack, email: str) -> None:
    for number in range(50):
        await redeem_in_parallel(nest, f"{number}.{email}")


async def redeem_in_parallel(nest: Stack, email: str) -> None:
    login = Login(email)
    body = login.redemption(await nest.code(login))
    answers = await everywhere(nest, "authenticate_user", [body] * 100)
    [won] = [answer for answer in answers if answer.status_code == 200]
    assert {answer.json()["code"] for answer in answers if answer is not won} == {"token_used"}
    assert len(await sessions(nest, won.json())) == 1


async def test_a_refresh_token_used_a_hundred_times_over_two_gateways_has_one_successor(
    nest: Stack, email: str
) -> None:
    tokens = await nest.log_in(email)

    answers = await everywhere(nest, "authenticate_user", [refreshing(tokens)] * 100)

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(await sessions(nest, answers[0].json())) == 1


async def test_a_thief_in_parallel_gets_nothing_and_ends_that_session_alone(nest: Stack, email: str) -> None:
    stolen, laptop = await nest.log_in(email), await nest.log_in(email)
    second = (await nest.call("authenticate_user", refreshing(stolen))).json()
    third = (await nest.call("authenticate_user", refreshing(second))).json()

    answers = await everywhere(nest, "authenticate_user", [refreshing(stolen)] * 50)

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(409, "token_used")}
    owner = await nest.call("authenticate_user", refreshing(third))
    assert (owner.status_code, owner.json()["code"]) == (404, "authorization_not_found")
    await refused_everywhere(nest, third)
    assert [session["current"] for session in await sessions(nest, laptop)] == [True]
    # To log in twice took two mails; the third tells of the theft, once.
    await nest.mail(email, count=3)
    assert len(nest.inbox.arrivals(email)) == 3


async def test_after_a_log_out_no_older_token_works_though_refreshes_raced_it(nest: Stack, email: str) -> None:
    await race(nest, email, rounds=30)


@pytest.mark.slow
async def test_after_each_of_five_hundred_log_outs_no_older_token_works(nest: Stack, email: str) -> None:
    await race(nest, email, rounds=500)


async def race(nest: Stack, email: str, *, rounds: int) -> None:
    """End all sessions of somebody while a device refreshes, and try whatever it got; so many rounds."""
    refreshed_first, pause = 0, 0.02
    for _ in range(rounds):
        before = await nest.log_in(email)
        refreshes = asyncio.create_task(everywhere(nest, "authenticate_user", [refreshing(before)] * 4))
        await asyncio.sleep(pause)
        ended = await revoke(nest, before, nest.internal)
        # From here on nothing older may work; what was under way may still be answered.
        assert ended.status_code == 200
        late = await everywhere(nest, "authenticate_user", [refreshing(before)] * 2)
        assert not [answer.text for answer in late if answer.status_code == 200]
        got = [answer.json() for answer in await refreshes if answer.status_code == 200]
        refreshed_first += bool(got)
        # Each of the two comes first now and then, however slow the machine is.
        pause = pause / 2 if got else pause * 2 + 0.001
        for tokens in got:
            answer = await nest.call("authenticate_user", refreshing(tokens))
            assert (answer.status_code, answer.json()["code"]) == (404, "authorization_not_found")
        for tokens in (before, *got[:1]):
            await refused_everywhere(nest, tokens)
    assert 0 < refreshed_first < rounds, "nothing raced"


async def everywhere(nest: Stack, method: str, bodies: Sequence[Any]) -> list[httpx.Response]:
    """The same call many times at once, by turns at each gateway."""
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(timeout=30, limits=limits) as http:
        urls = [nest.urls[number % len(nest.urls)] for number in range(len(bodies))]
        return await asyncio.gather(
            *(http.post(f"{url}{API}/{method}", json=body) for url, body in zip(urls, bodies, strict=True))
        )
