"""A person logs in by magic link, stays logged in, and is known to any resource server."""

import asyncio
import hashlib
import secrets
from typing import Any

import httpx
import jwt

from services.embedded.demo import CLIENT_ID
from tests.stack import VERIFIER, Login, Stack, code_of, eventually


async def test_a_newcomer_logs_in_and_finds_herself(nest: Stack, email: str) -> None:
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


async def test_verifier_and_challenge_of_rfc_7636_appendix_b(nest: Stack, email: str) -> None:
    login = Login(email, verifier=VERIFIER)
    assert login.challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

    answer = await nest.call("authenticate_user", login.redemption(await nest.code(login)))

    assert answer.status_code == 200


async def test_an_old_clients_hexadecimal_challenge_is_taken(nest: Stack, email: str) -> None:
    login = Login(email)
    hexadecimal = hashlib.sha256(login.verifier.encode()).hexdigest()
    answer = await nest.call("send_magic_link", login.order(code_challenge=hexadecimal))
    assert answer.status_code == 204
    mail = await nest.mail(email)
    redeemed = await nest.call("authenticate_user", login.redemption(code_of(mail, login)))

    assert redeemed.status_code == 200


async def test_the_second_login_is_the_same_user(nest: Stack, email: str) -> None:
    first = await nest.log_in(email)
    second = await nest.log_in(email)

    assert first["user_id"] == second["user_id"]


async def test_any_jwks_reading_client_can_check_the_access_token(nest: Stack, email: str) -> None:
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


async def test_of_a_hundred_parallel_redemptions_over_two_gateways_one_wins(nest: Stack, email: str) -> None:
    login = Login(email)
    body = login.redemption(await nest.code(login))
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=100)) as http:

        async def redeem(number: int) -> httpx.Response:
            headers = {"idempotency-key": f"{email} {number}"}
            # They are looked at one after the other. Whom a slow machine tells too late asks again.
            for _ in range(10):
                url = f"{nest.urls[number % 2]}/1/2021-10-06/authenticate_user"
                answer = await http.post(url, json=body, headers=headers)
                if answer.status_code != 504:
                    break
            return answer

        answers = await asyncio.gather(*map(redeem, range(100)))

    assert sorted({answer.status_code for answer in answers}) == [200, 409]
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"token_used"}


async def test_a_code_works_once(nest: Stack, email: str) -> None:
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


async def test_a_foreign_clients_code_is_refused(nest: Stack, email: str) -> None:
    made = await nest.call(
        "create_client", {"name": "Other", "redirect_uris": ["https://other.example/"]}, **nest.internal
    )
    login = Login(email)

    answer = await nest.call("authenticate_user", login.redemption(await nest.code(login), client_id=made.json()["id"]))

    assert (answer.status_code, answer.json()["code"]) == (403, "incorrect_client")


async def test_a_later_login_revokes_the_other_open_links(nest: Stack, email: str) -> None:
    first, second = Login(email), Login(email)
    first_code, second_code = await nest.code(first), await nest.code(second)
    assert (await nest.call("authenticate_user", second.redemption(second_code))).status_code == 200

    answer = await nest.call("authenticate_user", first.redemption(first_code))

    assert (answer.status_code, answer.json()["code"]) == (404, "authorization_not_found")


async def test_a_refresh_token_gives_a_successor_and_ends_the_old_access_token(nest: Stack, email: str) -> None:
    old = await nest.log_in(email)

    new = (await _refresh(nest, old["refresh_token"])).json()

    assert new["refresh_token"] != old["refresh_token"]
    assert (await _user(nest, new)).status_code == 200

    async def refused() -> Any:
        answer = await _user(nest, old)
        return answer.json() if answer.status_code == 401 else None

    body = await eventually(refused, within=1.0, what="the revocation")
    assert body["code"] == "unauthorized"
    assert body["reasons"][0]["code"] == "token_revoked"


async def test_a_refresh_repeated_at_once_gets_the_same_successor(nest: Stack, email: str) -> None:
    old = await nest.log_in(email)

    answers = await asyncio.gather(*(_refresh(nest, old["refresh_token"]) for _ in range(5)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


async def test_a_stolen_refresh_token_ends_the_whole_chain(nest: Stack, email: str) -> None:
    first = await nest.log_in(email)
    second = (await _refresh(nest, first["refresh_token"])).json()
    third = (await _refresh(nest, second["refresh_token"])).json()

    thief = await _refresh(nest, first["refresh_token"])
    owner = await _refresh(nest, third["refresh_token"])

    assert thief.status_code == 409
    assert thief.json()["code"] == "token_used"
    assert owner.status_code == 404


async def test_another_device_stays_logged_in_after_a_theft(nest: Stack, email: str) -> None:
    phone, laptop = await nest.log_in(email), await nest.log_in(email)
    second = (await _refresh(nest, phone["refresh_token"])).json()
    await _refresh(nest, second["refresh_token"])
    assert (await _refresh(nest, phone["refresh_token"])).status_code == 409

    answer = await _refresh(nest, laptop["refresh_token"])

    assert answer.status_code == 200


async def test_nobody_reads_another_user(nest: Stack, email: str) -> None:
    ada, eve = await nest.log_in(email), await nest.log_in(f"eve.{email}")

    answer = await nest.call("get_user", {"user_id": ada["user_id"]}, authorization=f"Bearer {eve['access_token']}")

    assert (answer.status_code, answer.json()["code"]) == (403, "access_denied")


async def test_an_operator_reads_any_user(nest: Stack, email: str) -> None:
    ada = await nest.log_in(email)

    assert (await nest.call("get_user", {"user_id": ada["user_id"]}, **nest.internal)).status_code == 200
    missing = await nest.call("get_user", {"user_id": "user_nobody"}, **nest.internal)
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def test_no_secret_of_a_login_is_readable_at_rest(nest: Stack, email: str, mongo_client: Any) -> None:
    login = Login(email)
    code = await nest.code(login)
    tokens = (await nest.call("authenticate_user", login.redemption(code))).json()
    key = code.partition(".")[2]
    refresh_key = tokens["refresh_token"].rpartition(".")[2]
    prefix = nest.environment["NEST_DATABASE_PREFIX"]

    held = [
        str(document)
        for name in mongo_client.list_database_names()
        if name.startswith(prefix)
        for collection in mongo_client[name].list_collection_names()
        for document in mongo_client[name][collection].find()
    ]

    assert held
    for secret in (key, login.verifier, tokens["access_token"], refresh_key):
        assert not any(secret in document for document in held)


async def _refresh(nest: Stack, token: str) -> httpx.Response:
    return await nest.call(
        "authenticate_user", {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": token}
    )


async def _user(nest: Stack, tokens: dict[str, Any]) -> httpx.Response:
    return await nest.call("get_user", {"user_id": tokens["user_id"]}, authorization=f"bearer {tokens['access_token']}")
