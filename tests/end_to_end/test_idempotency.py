"""Repeats of a call under the same Idempotency-Key."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from tests.end_to_end.flows import database
from tests.stack import API, Login, Stack, eventually


async def test_repeat_gets_the_stored_response(nest: Stack, email: str) -> None:
    login = Login(email)
    body, key = login.redemption(await nest.code(login)), secrets.token_hex(8)

    first = await nest.call("authenticate_user", body, idempotency_key=key)
    again = await nest.call("authenticate_user", body, idempotency_key=key)

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


async def test_lost_response_is_repeated_by_another_gateway(nest: Stack, email: str) -> None:
    login = Login(email)
    body, headers = login.redemption(await nest.code(login)), {"idempotency-key": secrets.token_hex(8)}
    async with httpx.AsyncClient(timeout=30) as http:
        call = asyncio.create_task(http.post(f"{nest.urls[0]}{API}/authenticate_user", json=body, headers=headers))
        await asyncio.sleep(0.005)
        call.cancel()

        response = await http.post(f"{nest.urls[1]}{API}/authenticate_user", json=body, headers=headers)

    assert response.status_code == 200
    assert response.json()["user_id"]


@pytest.mark.parametrize("repeats", [30, pytest.param(100, marks=pytest.mark.slow)])
async def test_parallel_repeats_have_one_effect_and_one_response(nest: Stack, email: str, repeats: int) -> None:
    login, headers = Login(email), {"idempotency-key": secrets.token_hex(8)}
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=repeats)) as http:
        responses = await asyncio.gather(
            *(
                http.post(f"{nest.urls[n % 2]}{API}/send_magic_link", json=login.request(), headers=headers)
                for n in range(repeats)
            )
        )
    await nest.mail(email)

    assert {response.status_code for response in responses} == {204}
    # A mail that is sent later arrives after a second mail of the repeats would have.
    await nest.code(Login(f"other.{email}"))
    assert len(nest.inbox.arrivals(email)) == 1


async def test_same_key_with_another_body_is_refused(nest: Stack, email: str) -> None:
    key = secrets.token_hex(8)
    await nest.call("send_magic_link", Login(email).request(), idempotency_key=key)

    response = await nest.call("send_magic_link", Login(f"other.{email}").request(), idempotency_key=key)

    assert (response.status_code, response.json()["code"]) == (409, "idempotency_key_reused")


async def test_refusal_is_stored_too(nest: Stack, email: str) -> None:
    key, login = secrets.token_hex(8), Login(email)
    body = login.redemption("authzcode_missing." + "0" * 64)

    first = await nest.call("authenticate_user", body, idempotency_key=key)
    again = await nest.call("authenticate_user", body, idempotency_key=key)

    assert first.status_code == again.status_code == 404
    assert first.json()["code"] == again.json()["code"] == "token_not_found"
    assert again.headers["idempotent-replayed"] == "true"


async def test_callers_may_use_the_same_key(nest: Stack, email: str) -> None:
    ada, eve = await nest.log_in(email), await nest.log_in(f"eve.{email}")
    key = secrets.token_hex(8)
    for tokens in (ada, eve):
        response = await nest.call(
            "set_marketing_consent",
            {"user_id": tokens["user_id"], "level": "general"},
            authorization=f"bearer {tokens['access_token']}",
            idempotency_key=key,
        )
        assert response.status_code == 204, response.text


async def test_repeat_gets_the_stored_response_after_the_messages_were_read_everywhere(
    nest: Stack, email: str, mongo_client: MongoClient[dict[str, Any]]
) -> None:
    inbox = database(nest, mongo_client, "auth")["inbox"]
    login, key = Login(email), secrets.token_hex(8)
    # Rows of other tests may keep their messages, for example because their service was restarted.
    earlier = [row["_id"] for row in inbox.find({"messages.type": "mailer.send-mail"}, {"_id": 1})]
    first = await nest.call("send_magic_link", login.request(), idempotency_key=key)
    await nest.mail(email)
    own = {"messages.type": "mailer.send-mail", "_id": {"$nin": earlier}}
    await eventually(lambda: not inbox.count_documents(own), what="a row without its mail")

    again = await nest.call("send_magic_link", login.request(), idempotency_key=key)

    assert (first.status_code, again.status_code) == (204, 204)
    assert again.headers["idempotent-replayed"] == "true"
    # A mail that is sent later arrives after a second mail of the repeat would have.
    await nest.code(Login(f"other.{email}"))
    assert len(nest.inbox.arrivals(email)) == 1
