"""A person logs in by phone number: the code is read from the inbox, as from a phone."""

import asyncio
import itertools
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from pymongo import MongoClient

from services.embedded.demo import CLIENT_ID
from tests.stack import Stack, eventually, running_stack

_COUNT = itertools.count()
SEPARATE = ("gateway", "auth", "mailer")


@dataclass(frozen=True)
class Phone:
    """Somebody's phone, and the app on it."""

    nest: Stack
    number: str

    async def order(self, **headers: str) -> str:
        """The nonce of a code that was ordered."""
        answer = await self.nest.http.post("/init", json={"phone_number": self.number}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert re.fullmatch(r"[0-9a-f]{32}", answer.text)
        return answer.text

    async def code(self, count: int = 1) -> str:
        """What the newest text says, once there are so many."""
        arrivals = await eventually(
            lambda: found if len(found := self.nest.inbox.arrivals(self.number)) >= count else None,
            what=f"{count} texts",
        )
        lines = arrivals[0].text.splitlines()
        code, said = re.match(r"([0-9]{6}) (.*)", lines[0]).groups()  # type: ignore[union-attr]
        assert said == "is your Beak code. It works once, for 10 minutes. Do not share it."
        assert lines[-1] == f"@nest.example #{code}"
        return str(code)

    async def verify(self, code: str, nonce: str, clientid: str = CLIENT_ID) -> httpx.Response:
        body = {"code": code, "nonce": nonce, "clientid": clientid}
        return await self.nest.http.post("/verify", json=body)

    async def register(self, code: str, nonce: str, **body: Any) -> httpx.Response:
        named = {"first_name": "Ada", "last_name": "Lovelace", **body}
        return await self.nest.http.post(f"/register/{code}/{nonce}", json=named)

    async def log_in(self) -> str:
        """A token."""
        before = len(self.nest.inbox.arrivals(self.number))
        nonce = await self.order()
        answer = await self.verify(await self.code(before + 1), nonce)
        assert answer.status_code == 200, answer.text
        return answer.text


def wrong(code: str) -> str:
    return "000000" if code != "000000" else "000001"


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def refused(answer: httpx.Response) -> tuple[int, str]:
    assert answer.json()["meta"]["request_id"] == answer.headers["x-request-id"]
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def new_phone(nest: Stack) -> Callable[[], Phone]:
    """Makes phones with numbers that nobody else has."""
    return lambda: Phone(nest, f"+4179{next(_COUNT):03}{secrets.randbelow(10**4):04}")


@pytest.fixture
def phone(new_phone: Callable[[], Phone]) -> Phone:
    return new_phone()


async def test_a_newcomer_logs_in_by_text_and_the_token_is_a_bearer_of_the_api(nest: Stack, phone: Phone) -> None:
    token = await phone.log_in()

    said = claims(token)
    keys = jwt.PyJWKSet.from_dict((await nest.http.get("/.well-known/jwks.json")).json())
    kid = jwt.get_unverified_header(token)["kid"]
    key = next(key for key in keys.keys if key.key_id == kid)
    assert jwt.decode(token, key, algorithms=["ES256"], audience=CLIENT_ID, issuer=nest.urls[0]) == said
    assert set(said) == {"userid", "clientid", "v", "jti", "iss", "sub", "aud", "iat", "exp"}
    assert said["userid"] == said["sub"]
    assert said["clientid"] == said["aud"] == CLIENT_ID
    assert said["exp"] - said["iat"] == 24 * 3600
    user = await nest.call("get_user", {"user_id": said["userid"]}, authorization=f"bearer {token}")
    assert user.status_code == 200
    [identifier] = user.json()["identifiers"]
    assert (identifier["identifier_type"], identifier["identifier_value"]) == ("phone", phone.number)


async def test_the_second_login_is_the_same_user_however_the_number_is_written(phone: Phone) -> None:
    first = claims(await phone.log_in())
    spaced = Phone(phone.nest, phone.number)
    nonce = (await phone.nest.http.post("/init", json={"phone_number": f"41 79 {phone.number[5:]}"})).text
    second = claims((await spaced.verify(await spaced.code(2), nonce)).text)
    assert first["userid"] == second["userid"]


async def test_a_newcomer_registers_and_logs_in(nest: Stack, phone: Phone) -> None:
    nonce = await phone.order()
    answer = await phone.register(await phone.code(), nonce, phone_number=phone.number.removeprefix("+"))
    assert answer.status_code == 200
    user = answer.json()
    assert user == {
        "id": user["id"],
        "first_name": "Ada",
        "last_name": "Lovelace",
        "phone_number": phone.number,
    }
    assert claims(await phone.log_in())["userid"] == user["id"]

    nonce = await phone.order()
    again = await phone.register(await phone.code(3), nonce)
    assert refused(again) == (409, "user_already_registered")


async def test_who_logged_in_first_gets_a_name_by_registering(phone: Phone) -> None:
    user_id = claims(await phone.log_in())["userid"]
    nonce = await phone.order()
    code = await phone.code(2)
    assert refused(await phone.register(wrong(code), nonce)) == (401, "incorrect_phone_code")
    assert refused(await phone.register(code, nonce, first_name="")) == (400, "first_name_missing")
    assert refused(await phone.register(code, nonce, last_name=" ")) == (400, "last_name_missing")
    assert refused(await phone.register(code, nonce, phone_number="+41791112233")) == (400, "incorrect_phone_number")
    answer = await phone.register(code, nonce)
    assert (answer.status_code, answer.json()["id"]) == (200, user_id)
    assert refused(await phone.register(code, nonce)) == (401, "incorrect_phone_code")


async def test_wrong_used_and_late_codes_are_not_found(
    nest: Stack, new_phone: Callable[[], Phone], mongo_client: MongoClient[dict[str, Any]]
) -> None:
    phone = new_phone()
    nonce = await phone.order()
    code = await phone.code()
    assert refused(await phone.verify(wrong(code), nonce)) == (404, "phone_code_not_found")
    assert refused(await phone.verify(code, "0" * 32)) == (404, "phone_code_not_found")
    assert (await phone.verify(code, nonce)).status_code == 200
    assert refused(await phone.verify(code, nonce)) == (404, "phone_code_not_found")

    late = new_phone()
    nonce = await late.order()
    code = await late.code()
    codes = mongo_client[f"{nest.environment['NEST_DATABASE_PREFIX']}auth"]["phone_codes"]
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert codes.update_one({"phoneNumber": late.number}, {"$set": {"expiresAt": past}}).modified_count == 1
    assert refused(await late.verify(code, nonce)) == (404, "phone_code_not_found")


async def test_five_wrong_codes_void_a_nonce(phone: Phone) -> None:
    nonce = await phone.order()
    code = await phone.code()
    for _ in range(5):
        assert refused(await phone.verify(wrong(code), nonce)) == (404, "phone_code_not_found")
    assert refused(await phone.verify(code, nonce)) == (404, "phone_code_not_found")


async def test_of_twenty_verifications_at_once_over_two_gateways_one_succeeds(nest: Stack, phone: Phone) -> None:
    nonce = await phone.order()
    body = {"code": await phone.code(), "nonce": nonce, "clientid": CLIENT_ID}
    async with httpx.AsyncClient(timeout=30) as http:
        answers = await asyncio.gather(
            *(http.post(f"{nest.urls[n % 2]}/verify", json=body) for n in range(20)),
        )
    assert sorted(answer.status_code for answer in answers) == [200] + [404] * 19


async def test_two_people_with_the_same_code_never_disturb_each_other(
    new_phone: Callable[[], Phone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.phone.handlers.new_code", lambda: "424242")
    phones = [new_phone() for _ in range(8)]
    nonces = await asyncio.gather(*(phone.order() for phone in phones))
    assert [await phone.code() for phone in phones] == ["424242"] * 8
    answers = await asyncio.gather(
        *(phone.verify("424242", nonce) for phone, nonce in zip(phones, nonces, strict=True))
    )
    assert [answer.status_code for answer in answers] == [200] * 8
    assert len({claims(answer.text)["userid"] for answer in answers}) == 8


async def test_the_fourth_text_to_a_number_has_to_wait(phone: Phone) -> None:
    for _ in range(3):
        await phone.order()
    answer = await phone.nest.http.post("/init", json={"phone_number": phone.number})
    assert refused(answer)[0] == 429
    assert 0 < int(answer.headers["retry-after"]) <= 600
    await phone.code(3)
    assert len(phone.nest.inbox.arrivals(phone.number)) == 3


@pytest.mark.parametrize("number", ["", "no number", "0791234567", "+41", None, {"$gt": ""}, 41791234567])
async def test_what_is_no_phone_number_is_told(nest: Stack, number: Any) -> None:
    assert refused(await nest.http.post("/init", json={"phone_number": number})) == (400, "invalid_phone_number")
    body = {"first_name": "Ada", "last_name": "Lovelace", "phone_number": number}
    if number is not None:
        answer = await nest.http.post(f"/register/123456/{'0' * 32}", json=body)
        assert refused(answer) == (400, "invalid_phone_number")


async def test_known_and_unknown_numbers_get_the_same_answer(phone: Phone, new_phone: Callable[[], Phone]) -> None:
    await phone.log_in()
    known, unknown = [
        await each.nest.http.post("/init", json={"phone_number": each.number}) for each in (phone, new_phone())
    ]
    alike = [
        (answer.status_code, len(answer.text), sorted(set(answer.headers) - {"date"})) for answer in (known, unknown)
    ]
    assert alike[0] == alike[1]


async def test_tests_log_in_without_a_code_where_the_settings_say_so(nest: Stack, phone: Phone) -> None:
    user_id = claims(await phone.log_in())["userid"]
    answer = await nest.http.post("/login", json={"userid": user_id, "clientid": CLIENT_ID})
    assert answer.status_code == 200
    user = await nest.call("get_user", {"user_id": user_id}, authorization=f"bearer {answer.text}")
    assert user.status_code == 200
    nobody = await nest.http.post("/login", json={"userid": "nobody", "clientid": CLIENT_ID})
    assert refused(nobody) == (404, "not_found")


@pytest.mark.parametrize("field", ["code", "nonce", "clientid"])
async def test_operators_of_mongodb_are_no_codes(phone: Phone, field: str) -> None:
    nonce = await phone.order()
    body: dict[str, Any] = {"code": await phone.code(), "nonce": nonce, "clientid": CLIENT_ID}
    for operator in ({"$gt": ""}, {"$ne": None}, {"$regex": ".*"}):
        answer = await phone.nest.http.post("/verify", json={**body, field: operator})
        assert refused(answer) == (422, "validation_failed")
    if field != "clientid":
        # An app may have any name, this one too.
        answer = await phone.nest.http.post("/verify", json={**body, field: json.dumps({"$gt": ""})})
        assert answer.status_code == 404
    assert (await phone.nest.http.post("/verify", json=body)).status_code == 200


async def test_nothing_secret_is_in_any_log_kafka_record_or_document(
    tmp_path: Path, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str], mongo_client: MongoClient[Any]
) -> None:
    """Services in processes of their own, so that their logs are as they would be."""
    prefix = unique()
    async with running_stack(
        tmp_path,
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
        separate=SEPARATE,
        settings={"NEST_LOG_LEVEL": "debug"},
    ) as nest:
        phone = Phone(nest, "+41791234567")
        nonces = [await phone.order(), await phone.order()]
        await phone.code(2)
        codes = [arrival.text[:6] for arrival in nest.inbox.arrivals(phone.number)]
        answers = [await phone.register(code, nonce) for nonce in nonces for code in codes]
        [user_id] = [answer.json()["id"] for answer in answers if answer.status_code == 200]
        token = (await nest.http.post("/login", json={"userid": user_id, "clientid": CLIENT_ID})).text
        logs = "".join(process.log for process in nest.processes.values())
        stored = repr(
            [
                list(mongo_client[f"{prefix}{service}"][name].find())
                for service in ("auth", "mailer")
                for name in mongo_client[f"{prefix}{service}"].list_collection_names()
            ]
        )
    assert logs.count("started") >= len(SEPARATE)
    for secret in (*nonces, token):
        assert secret not in logs
        assert secret not in stored
    for code in codes:
        assert not re.search(rf"(?<![0-9a-f]){code}(?![0-9a-f])", logs)
        assert not re.search(rf"(?<![0-9A-Za-z]){code}(?![0-9A-Za-z])", stored)
