"""Login by phone number: the tests read the code from the inbox, as a person reads it on the phone."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest

from services.embedded.demo import CLIENT_ID
from services.gateway.methods import PATHS
from tests.end_to_end.flows import Mongo, database
from tests.stack import Stack, eventually

_COUNT = itertools.count()


@dataclass(frozen=True)
class Phone:
    """A phone with an app."""

    nest: Stack
    number: str

    async def request_code(self) -> str:
        """Request a code and return its nonce."""
        response = await self.nest.http.post("/init", json={"phone_number": self.number})
        assert response.status_code == 200, response.text
        assert re.fullmatch(r"[0-9a-f]{32}", response.text)
        return response.text

    async def code(self, count: int = 1) -> str:
        """Wait for so many texts and return the code of the newest; assert its wording."""
        arrivals = await eventually(
            lambda: found if len(found := self.nest.inbox.arrivals(self.number)) >= count else None,
            what=f"{count} texts",
        )
        lines = arrivals[0].text.splitlines()
        code, sentence = re.match(r"([0-9]{6}) (.*)", lines[0]).groups()  # type: ignore[union-attr]
        assert sentence == "is your Beak code. It works once, for 10 minutes. Do not share it."
        assert lines[-1] == f"@nest.example #{code}"
        return str(code)

    async def verify(self, code: str, nonce: str, clientid: str | None = CLIENT_ID) -> httpx.Response:
        body = {"code": code, "nonce": nonce, "clientid": clientid}
        return await self.nest.http.post("/verify", json=body)

    async def register(self, code: str, nonce: str, **fields: Any) -> httpx.Response:
        body = {"first_name": "Ada", "last_name": "Lovelace", **fields}
        return await self.nest.http.post(f"/register/{code}/{nonce}", json=body)

    async def log_in(self) -> str:
        """Log in and return the token."""
        before = len(self.nest.inbox.arrivals(self.number))
        nonce = await self.request_code()
        response = await self.verify(await self.code(before + 1), nonce)
        assert response.status_code == 200, response.text
        return response.text


def wrong(code: str) -> str:
    return "000000" if code != "000000" else "000001"


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Return status and error code; assert that the body has the request ID."""
    assert response.json()["meta"]["request_id"] == response.headers["x-request-id"]
    return response.status_code, response.json()["code"]


@pytest.fixture
def new_phone(nest: Stack) -> Callable[[], Phone]:
    """Creates phones with unused numbers."""
    return lambda: Phone(nest, f"+4179{next(_COUNT):03}{secrets.randbelow(10**4):04}")


@pytest.fixture
def phone(new_phone: Callable[[], Phone]) -> Phone:
    return new_phone()


async def test_token_of_a_phone_login_authorizes_api_calls(nest: Stack, phone: Phone) -> None:
    token = await phone.log_in()

    unverified = claims(token)
    keys = jwt.PyJWKSet.from_dict((await nest.http.get("/.well-known/jwks.json")).json())
    kid = jwt.get_unverified_header(token)["kid"]
    key = next(key for key in keys.keys if key.key_id == kid)
    assert jwt.decode(token, key, algorithms=["ES256"], audience=CLIENT_ID, issuer=nest.urls[0]) == unverified
    assert set(unverified) == {"userid", "clientid", "v", "jti", "iss", "sub", "aud", "iat", "exp"}
    assert unverified["userid"] == unverified["sub"]
    assert unverified["clientid"] == unverified["aud"] == CLIENT_ID
    assert unverified["exp"] - unverified["iat"] == 24 * 3600
    user = await nest.call("get_user", {"user_id": unverified["userid"]}, authorization=f"bearer {token}")
    assert user.status_code == 200
    [identifier] = user.json()["identifiers"]
    assert (identifier["identifier_type"], identifier["identifier_value"]) == ("phone", phone.number)


@pytest.mark.parametrize("name", ["app-7", "", None, CLIENT_ID.upper(), f"{CLIENT_ID} "], ids=repr)
async def test_token_for_an_app_that_is_no_client_opens_nothing(nest: Stack, phone: Phone, name: str | None) -> None:
    nonce = await phone.request_code()
    token = (await phone.verify(await phone.code(), nonce, name)).text
    # RFC 8725 section 3.11
    assert jwt.get_unverified_header(token)["typ"] == "phone+jwt"
    headers, body = {"authorization": f"bearer {token}"}, {"user_id": claims(token)["sub"]}
    with_bearer = [path for path, each in PATHS.items() if each.message is not None and not each.credential_in_body]
    assert len(with_bearer) > 40
    for path in with_bearer:
        assert refusal(await nest.http.post(path, json=body, headers=headers)) == (401, "unauthorized"), path
    assert (await nest.http.post("/users/userdata", json={"token": token})).status_code == 401
    assert (await nest.http.get(f"/users/islogged/{token}")).status_code == 401


async def test_notation_of_the_number_does_not_matter(phone: Phone) -> None:
    first = claims(await phone.log_in())
    nonce = (await phone.nest.http.post("/init", json={"phone_number": f"41 79 {phone.number[5:]}"})).text
    second = claims((await phone.verify(await phone.code(2), nonce)).text)
    assert first["userid"] == second["userid"]


async def test_new_user_registers_and_logs_in(phone: Phone) -> None:
    nonce = await phone.request_code()
    response = await phone.register(await phone.code(), nonce, phone_number=phone.number.removeprefix("+"))
    assert response.status_code == 200
    user = response.json()
    assert user == {
        "id": user["id"],
        "first_name": "Ada",
        "last_name": "Lovelace",
        "phone_number": phone.number,
    }
    assert claims(await phone.log_in())["userid"] == user["id"]

    nonce = await phone.request_code()
    again = await phone.register(await phone.code(3), nonce)
    assert refusal(again) == (409, "user_already_registered")


async def test_user_registers_after_the_first_login(phone: Phone) -> None:
    user_id = claims(await phone.log_in())["userid"]
    nonce = await phone.request_code()
    code = await phone.code(2)
    assert refusal(await phone.register(wrong(code), nonce)) == (401, "incorrect_phone_code")
    assert refusal(await phone.register(code, nonce, first_name="")) == (400, "first_name_missing")
    assert refusal(await phone.register(code, nonce, last_name=" ")) == (400, "last_name_missing")
    assert refusal(await phone.register(code, nonce, phone_number="+41791112233")) == (400, "incorrect_phone_number")
    response = await phone.register(code, nonce)
    assert (response.status_code, response.json()["id"]) == (200, user_id)
    assert refusal(await phone.register(code, nonce)) == (401, "incorrect_phone_code")


async def test_wrong_used_and_expired_codes_are_not_found(
    nest: Stack, new_phone: Callable[[], Phone], mongo_client: Mongo
) -> None:
    phone = new_phone()
    nonce = await phone.request_code()
    code = await phone.code()
    assert refusal(await phone.verify(wrong(code), nonce)) == (404, "phone_code_not_found")
    assert refusal(await phone.verify(code, "0" * 32)) == (404, "phone_code_not_found")
    assert (await phone.verify(code, nonce)).status_code == 200
    assert refusal(await phone.verify(code, nonce)) == (404, "phone_code_not_found")

    late = new_phone()
    nonce = await late.request_code()
    code = await late.code()
    codes = database(nest, mongo_client, "auth")["phone_codes"]
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert codes.update_one({"phoneNumber": late.number}, {"$set": {"expiresAt": past}}).modified_count == 1
    assert refusal(await late.verify(code, nonce)) == (404, "phone_code_not_found")


async def test_five_wrong_codes_void_a_nonce(phone: Phone) -> None:
    nonce = await phone.request_code()
    code = await phone.code()
    for _ in range(5):
        assert refusal(await phone.verify(wrong(code), nonce)) == (404, "phone_code_not_found")
    assert refusal(await phone.verify(code, nonce)) == (404, "phone_code_not_found")


async def test_one_of_twenty_parallel_verifications_succeeds(nest: Stack, phone: Phone) -> None:
    nonce = await phone.request_code()
    body = {"code": await phone.code(), "nonce": nonce, "clientid": CLIENT_ID}
    async with httpx.AsyncClient(timeout=30) as http:
        responses = await asyncio.gather(
            *(http.post(f"{nest.urls[n % 2]}/verify", json=body) for n in range(20)),
        )
    assert sorted(response.status_code for response in responses) == [200] + [404] * 19


async def test_phones_with_the_same_code_do_not_interfere(
    new_phone: Callable[[], Phone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.phone.handlers.new_code", lambda: "424242")
    phones = [new_phone() for _ in range(4)]
    nonces = await asyncio.gather(*(phone.request_code() for phone in phones))
    assert [await phone.code() for phone in phones] == ["424242"] * 4
    responses = await asyncio.gather(
        *(phone.verify("424242", nonce) for phone, nonce in zip(phones, nonces, strict=True))
    )
    assert [response.status_code for response in responses] == [200] * 4
    assert len({claims(response.text)["userid"] for response in responses}) == 4


async def test_fourth_text_to_a_number_is_throttled(phone: Phone) -> None:
    for _ in range(3):
        await phone.request_code()
    response = await phone.nest.http.post("/init", json={"phone_number": phone.number})
    assert refusal(response)[0] == 429
    assert 0 < int(response.headers["retry-after"]) <= 600
    await phone.code(3)
    assert len(phone.nest.inbox.arrivals(phone.number)) == 3


@pytest.mark.parametrize("number", ["", "no number", "0791234567", "+41", None, {"$gt": ""}, 41791234567])
async def test_invalid_phone_number_is_refused(nest: Stack, number: Any) -> None:
    assert refusal(await nest.http.post("/init", json={"phone_number": number})) == (400, "invalid_phone_number")
    body = {"first_name": "Ada", "last_name": "Lovelace", "phone_number": number}
    if number is not None:
        response = await nest.http.post(f"/register/123456/{'0' * 32}", json=body)
        assert refusal(response) == (400, "invalid_phone_number")


async def test_test_login_needs_no_code_if_enabled(nest: Stack, phone: Phone) -> None:
    user_id = claims(await phone.log_in())["userid"]
    response = await nest.http.post("/login", json={"userid": user_id, "clientid": CLIENT_ID})
    assert response.status_code == 200
    user = await nest.call("get_user", {"user_id": user_id}, authorization=f"bearer {response.text}")
    assert user.status_code == 200
    missing = await nest.http.post("/login", json={"userid": "missing", "clientid": CLIENT_ID})
    assert refusal(missing) == (404, "not_found")


@pytest.mark.parametrize("field", ["code", "nonce", "clientid"])
async def test_mongodb_operators_are_not_codes(phone: Phone, field: str) -> None:
    nonce = await phone.request_code()
    body: dict[str, Any] = {"code": await phone.code(), "nonce": nonce, "clientid": CLIENT_ID}
    for operator in ({"$gt": ""}, {"$ne": None}, {"$regex": ".*"}):
        response = await phone.nest.http.post("/verify", json={**body, field: operator})
        assert refusal(response) == (400, "validation_failed")
    if field != "clientid":
        # An app may have any client ID, even this one.
        response = await phone.nest.http.post("/verify", json={**body, field: json.dumps({"$gt": ""})})
        assert response.status_code == 404
    assert (await phone.nest.http.post("/verify", json=body)).status_code == 200
