"""Login by magic link, refresh and token checks by resource servers, at two gateways."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from typing import Any

import httpx
import jwt
import pytest

from services.embedded.demo import CLIENT_ID
from tests.stack import API, CHALLENGE, VERIFIER, Login, Stack, code_of, eventually


async def test_new_user_logs_in_and_reads_own_profile(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)

    user = await nest.call("get_user", {"user_id": tokens["user_id"]}, authorization=f"bearer {tokens['access_token']}")

    assert user.status_code == 200
    assert user.json()["id"] == tokens["user_id"]
    (identifier,) = user.json()["identifiers"]
    assert (identifier["identifier_type"], identifier["identifier_value"]) == ("email", email)
    assert identifier["verified_at"] is not None
    assert tokens["token_type"] == "bearer"
    assert tokens["expires_in"] == 3600
    assert tokens["client_id"] == CLIENT_ID


async def test_verifier_and_challenge_of_rfc_7636_match(nest: Stack, email: str) -> None:
    login = Login(email, verifier=VERIFIER)
    assert login.challenge == CHALLENGE

    response = await nest.call("authenticate_user", login.redemption(await nest.code(login)))

    assert response.status_code == 200


async def test_typed_code_of_the_mail_logs_the_requesting_device_in(nest: Stack, email: str) -> None:
    login, other = Login(email), Login(email)
    version = "2026-12-01"
    requested = await nest.call("send_magic_link", login.request(), version=version)
    assert (requested.status_code, requested.content) == (204, b"")
    mail = await nest.mail(email)
    digits = re.findall(r"^[0-9]{6}$", mail.text, re.MULTILINE)[0]

    stolen = await nest.call("authenticate_user", other.redemption(digits), version=version)
    wrong = await nest.call("authenticate_user", login.redemption(f"{(int(digits) + 1) % 10**6:06}"), version=version)
    frozen = await nest.call("authenticate_user", login.redemption(digits))
    redeemed = await nest.call("authenticate_user", login.redemption(f"{digits[:3]} {digits[3:]}"), version=version)
    again = await nest.call("authenticate_user", login.redemption(code_of(mail, login)), version=version)

    assert (stolen.status_code, stolen.json()["code"]) == (404, "token_not_found")
    assert (wrong.status_code, wrong.json()["code"], wrong.json()["meta"]["guesses_left"]) == (400, "incorrect_code", 4)
    assert (frozen.status_code, frozen.json()["code"]) == (400, "malformed_code")
    assert redeemed.status_code == 200
    assert (again.status_code, again.json()["code"]) == (409, "token_used")


async def test_hexadecimal_challenge_of_old_clients_is_accepted(nest: Stack, email: str) -> None:
    login = Login(email)
    hexadecimal = hashlib.sha256(login.verifier.encode()).hexdigest()
    requested = await nest.call("send_magic_link", login.request(code_challenge=hexadecimal))
    assert requested.status_code == 204
    mail = await nest.mail(email)
    redeemed = await nest.call("authenticate_user", login.redemption(code_of(mail, login)))

    assert redeemed.status_code == 200


async def test_second_login_is_the_same_user(nest: Stack, email: str) -> None:
    first = await nest.log_in(email)
    second = await nest.log_in(email)

    assert first["user_id"] == second["user_id"]


async def test_jwks_client_verifies_the_access_token(nest: Stack, email: str) -> None:
    tokens = await nest.log_in(email)
    configuration = (await nest.http.get("/.well-known/openid-configuration")).json()
    keys = jwt.PyJWKSet.from_dict((await nest.http.get(configuration["jwks_uri"])).json())
    header = jwt.get_unverified_header(tokens["access_token"])
    key = next(key for key in keys.keys if key.key_id == header["kid"])

    claims = jwt.decode(
        tokens["access_token"], key, algorithms=["ES256"], audience=CLIENT_ID, issuer=configuration["issuer"]
    )

    assert claims["sub"] == tokens["user_id"]
    assert set(claims) == {"v", "jti", "iss", "sub", "aud", "iat", "exp"}
    assert claims["v"] == "1"
    assert claims["exp"] - claims["iat"] == 3600


@pytest.mark.parametrize(
    ("codes", "attempts"),
    [(1, 20), pytest.param(1, 100, marks=pytest.mark.slow), pytest.param(50, 20, marks=pytest.mark.slow)],
)
async def test_parallel_redemptions_of_a_code_create_one_session(
    nest: Stack, email: str, codes: int, attempts: int
) -> None:
    for number in range(codes):
        login = Login(f"{number}.{email}")
        body = login.redemption(await nest.code(login))
        async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=attempts)) as http:
            responses = await asyncio.gather(*(_redeem(nest, http, body, attempt) for attempt in range(attempts)))

        [winner] = [response for response in responses if response.status_code == 200]
        assert {(each.status_code, each.json()["code"]) for each in responses if each is not winner} == {
            (409, "token_used")
        }
        tokens = winner.json()
        sessions = await nest.call(
            "list_sessions", {"user_id": tokens["user_id"]}, authorization=f"bearer {tokens['access_token']}"
        )
        assert len(sessions.json()) == 1


async def _redeem(nest: Stack, http: httpx.AsyncClient, body: dict[str, Any], attempt: int) -> httpx.Response:
    url = f"{nest.urls[attempt % 2]}{API}/authenticate_user"
    headers = {"idempotency-key": secrets.token_hex(8)}
    # Attempts at one code are handled one after another. On a slow machine the last get 504 and must repeat the call.
    for _ in range(10):
        response = await http.post(url, json=body, headers=headers)
        if response.status_code != 504:
            break
    return response


async def test_code_works_once(nest: Stack, email: str) -> None:
    login = Login(email)
    body = login.redemption(await nest.code(login))
    assert (await nest.call("authenticate_user", body)).status_code == 200

    again = await nest.call("authenticate_user", body)

    assert (again.status_code, again.json()["code"]) == (409, "token_used")


async def test_five_wrong_verifiers_void_the_code(nest: Stack, email: str) -> None:
    login = Login(email)
    code = await nest.code(login)
    for _ in range(5):
        wrong = await nest.call("authenticate_user", login.redemption(code, code_verifier=secrets.token_urlsafe(32)))
        assert (wrong.status_code, wrong.json()["code"]) == (400, "incorrect_code_verifier")

    right = await nest.call("authenticate_user", login.redemption(code))

    assert (right.status_code, right.json()["code"]) == (404, "authorization_not_found")


async def test_code_of_another_client_is_refused(nest: Stack, email: str) -> None:
    other = await nest.create_client()
    login = Login(email)

    response = await nest.call("authenticate_user", login.redemption(await nest.code(login), client_id=other["id"]))

    assert (response.status_code, response.json()["code"]) == (403, "incorrect_client")


async def test_login_revokes_the_other_open_links(nest: Stack, email: str) -> None:
    first, second = Login(email), Login(email)
    first_code, second_code = await nest.code(first), await nest.code(second)
    assert (await nest.call("authenticate_user", second.redemption(second_code))).status_code == 200

    response = await nest.call("authenticate_user", first.redemption(first_code))

    assert (response.status_code, response.json()["code"]) == (404, "authorization_not_found")


async def test_refresh_revokes_the_old_access_token(nest: Stack, email: str) -> None:
    old = await nest.log_in(email)

    new = (await _refresh(nest, old["refresh_token"])).json()

    assert new["refresh_token"] != old["refresh_token"]
    assert (await _user(nest, new)).status_code == 200

    async def refused() -> Any:
        response = await _user(nest, old)
        return response.json() if response.status_code == 401 else None

    body = await eventually(refused, within=1.0, what="the revocation")
    assert body["code"] == "unauthorized"
    assert body["reasons"][0]["code"] == "token_revoked"


async def test_stolen_refresh_token_ends_its_token_family(nest: Stack, email: str) -> None:
    first = await nest.log_in(email)
    second = (await _refresh(nest, first["refresh_token"])).json()
    third = (await _refresh(nest, second["refresh_token"])).json()

    thief = await _refresh(nest, first["refresh_token"])
    owner = await _refresh(nest, third["refresh_token"])

    assert thief.status_code == 409
    assert thief.json()["code"] == "token_used"
    assert owner.status_code == 404


async def test_theft_does_not_end_other_sessions(nest: Stack, email: str) -> None:
    phone, laptop = await nest.log_in(email), await nest.log_in(email)
    second = (await _refresh(nest, phone["refresh_token"])).json()
    await _refresh(nest, second["refresh_token"])
    assert (await _refresh(nest, phone["refresh_token"])).status_code == 409

    response = await _refresh(nest, laptop["refresh_token"])

    assert response.status_code == 200


async def test_user_cannot_read_another_user(nest: Stack, email: str) -> None:
    ada, eve = await nest.log_in(email), await nest.log_in(f"eve.{email}")

    response = await nest.call("get_user", {"user_id": ada["user_id"]}, authorization=f"Bearer {eve['access_token']}")

    assert (response.status_code, response.json()["code"]) == (403, "access_denied")


async def test_operator_reads_any_user(nest: Stack, email: str) -> None:
    ada = await nest.log_in(email)

    assert (await nest.call("get_user", {"user_id": ada["user_id"]}, **nest.internal)).status_code == 200
    missing = await nest.call("get_user", {"user_id": "user_missing"}, **nest.internal)
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def _refresh(nest: Stack, token: str) -> httpx.Response:
    return await nest.call(
        "authenticate_user", {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": token}
    )


async def _user(nest: Stack, tokens: dict[str, Any]) -> httpx.Response:
    return await nest.call("get_user", {"user_id": tokens["user_id"]}, authorization=f"bearer {tokens['access_token']}")
