"""A repeat under the same Idempotency-Key is the same call."""

import asyncio
import secrets

import httpx

from tests.stack import Login, Stack


async def test_a_repeat_gets_the_stored_answer(nest: Stack, email: str) -> None:
    login = Login(email)
    body, key = login.redemption(await nest.code(login)), secrets.token_hex(8)

    first = await nest.call("authenticate_user", body, idempotency_key=key)
    again = await nest.call("authenticate_user", body, idempotency_key=key)

    assert (first.status_code, again.status_code) == (200, 200)
    assert first.content == again.content
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_lost_answer_is_had_from_the_other_gateway(nest: Stack, email: str) -> None:
    login = Login(email)
    body, headers = login.redemption(await nest.code(login)), {"idempotency-key": secrets.token_hex(8)}
    async with httpx.AsyncClient(timeout=30) as http:
        asking = asyncio.create_task(
            http.post(f"{nest.urls[0]}/1/2021-10-06/authenticate_user", json=body, headers=headers)
        )
        await asyncio.sleep(0.005)
        asking.cancel()

        answer = await http.post(f"{nest.urls[1]}/1/2021-10-06/authenticate_user", json=body, headers=headers)

    assert answer.status_code == 200
    assert answer.json()["user_id"]


async def test_a_hundred_parallel_repeats_have_one_effect_and_one_answer(nest: Stack, email: str) -> None:
    login, headers = Login(email), {"idempotency-key": secrets.token_hex(8)}
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=100)) as http:
        answers = await asyncio.gather(
            *(
                http.post(f"{nest.urls[n % 2]}/1/2021-10-06/send_magic_link", json=login.order(), headers=headers)
                for n in range(100)
            )
        )
    await nest.mail(email)

    assert {answer.status_code for answer in answers} == {204}
    other = Login(f"other.{email}")
    await nest.code(other)
    assert len(nest.inbox.arrivals(email)) == 1


async def test_the_same_key_with_another_body_is_refused(nest: Stack, email: str) -> None:
    key = secrets.token_hex(8)
    await nest.call("send_magic_link", Login(email).order(), idempotency_key=key)

    answer = await nest.call("send_magic_link", Login(f"other.{email}").order(), idempotency_key=key)

    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")


async def test_a_refusal_is_repeated_too(nest: Stack, email: str) -> None:
    key, login = secrets.token_hex(8), Login(email)
    body = login.redemption("authzcode_nobody." + "0" * 64)

    first = await nest.call("authenticate_user", body, idempotency_key=key)
    again = await nest.call("authenticate_user", body, idempotency_key=key)

    assert first.status_code == again.status_code == 404
    assert first.json()["code"] == again.json()["code"] == "token_not_found"
    assert again.headers["idempotent-replayed"] == "true"


async def test_keys_of_different_callers_do_not_meet(nest: Stack, email: str) -> None:
    ada, eve = await nest.log_in(email), await nest.log_in(f"eve.{email}")
    key = secrets.token_hex(8)
    for tokens in (ada, eve):
        answer = await nest.call(
            "set_marketing_consent",
            {"user_id": tokens["user_id"], "level": "general"},
            authorization=f"bearer {tokens['access_token']}",
            idempotency_key=key,
        )
        assert answer.status_code == 204, answer.text
