"""The four routes of phone login: what becomes a message, what is refused before, what is answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY, generate_latest
from structlog.testing import capture_logs

from services.gateway.app import create
from services.gateway.settings import GatewaySettings
from shared.bus.envelope import Envelope
from shared.sealing import Sealer
from shared.settings import SettingsError, load
from tests.gateway.conftest import INTERNAL_KEYS, ORIGIN, World
from tests.gateway.fake_services import Refused

NONCE = "0123456789abcdef0123456789abcdef"
CODE = "864209"
TOKEN = "header.claims.signature"
NUMBER = "+41 79 123 45 67"
NAMES = {"first_name": "Ada", "last_name": "Lovelace"}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/init", {"phone_number": NUMBER}),
    ("/verify", {"code": CODE, "nonce": NONCE, "clientid": "client_1"}),
    (f"/register/{CODE}/{NONCE}", NAMES),
]


@pytest.fixture(autouse=True)
def auth(world: World) -> World:
    """Auth, as long as it has nothing against what is asked for."""

    def sealed(view: dict[str, Any]) -> Callable[[Envelope], bytes]:
        return lambda _envelope: world.services.sealer.seal("gateway", json.dumps(view).encode()).encode()

    registered = {"id": "user_1", **NAMES, "phone_number": "+41791234567"}
    world.services.replies |= {
        "auth.send-phone-code": sealed({"nonce": NONCE}),
        "auth.verify-phone-code": sealed({"token": TOKEN}),
        "auth.register-phone-user": lambda _envelope: registered,
    }
    return world


async def post(world: World, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.http.post(path, content=content, headers=named)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_init_answers_the_nonce_as_plain_text(world: World) -> None:
    answer = await post(world, "/init", {"phone_number": NUMBER}, x_request_id="mine")
    assert (answer.status_code, answer.text) == (200, NONCE)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["cache-control"] == "no-store"
    [heard] = world.services.received
    assert heard.wire == "auth.send-phone-code"
    assert json.loads(heard.body) == {"phone_number": NUMBER, "locales": []}
    assert heard.caller.client_ip == "127.0.0.1"


async def test_init_tells_which_languages_the_phone_asks_for_and_takes_them_from_its_header_alone(world: World) -> None:
    await post(world, "/init", {"phone_number": NUMBER}, accept_language="gsw-CH, de;q=0.8, *;q=0.1")
    [heard] = world.services.received
    assert json.loads(heard.body) == {"phone_number": NUMBER, "locales": ["gsw-CH", "de"]}
    answer = await post(world, "/init", {"phone_number": NUMBER, "locales": ["de"]})
    assert code(answer) == (422, "validation_failed")
    answer = await post(world, "/init", {"phone_number": NUMBER}, accept_language="{$gt: 1}; drop, *")
    assert answer.status_code == 200
    assert json.loads(world.services.received[-1].body)["locales"] == []


async def test_a_repeat_is_one_whatever_language_it_asks_for(world: World) -> None:
    for language in ("de", "fr"):
        answer = await post(world, "/init", {"phone_number": NUMBER}, accept_language=language, idempotency_key="a key")
        assert answer.status_code == 200
    first, second = world.services.received
    assert (first.id, first.fingerprint) == (second.id, second.fingerprint)


async def test_verify_answers_the_token_as_plain_text_and_seals_what_it_was_sent(world: World) -> None:
    answer = await post(world, *CALLS[1])
    assert (answer.status_code, answer.text) == (200, TOKEN)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    [heard] = world.services.received
    sent = json.loads(heard.body)
    sealer: Sealer = world.services.sealer
    assert {name: sealer.unseal("auth", sent[name]) for name in ("code", "nonce")} == {
        "code": CODE.encode(),
        "nonce": NONCE.encode(),
    }
    assert sent["clientid"] == "client_1"


async def test_register_answers_the_user_and_seals_what_stands_in_its_path(world: World) -> None:
    answer = await post(world, f"/register/{CODE}/{NONCE}", {**NAMES, "phone_number": NUMBER})
    assert (answer.status_code, answer.json()["id"]) == (200, "user_1")
    assert answer.headers["content-type"] == "application/json"
    [heard] = world.services.received
    sent = json.loads(heard.body)
    assert world.services.sealer.unseal("auth", sent["code"]) == CODE.encode()
    assert world.services.sealer.unseal("auth", sent["nonce"]) == NONCE.encode()
    assert {name: sent[name] for name in (*NAMES, "phone_number")} == {**NAMES, "phone_number": NUMBER}


async def test_neither_number_nor_nonce_nor_code_is_readable_in_kafka_keys(world: World) -> None:
    for path, body in CALLS:
        await post(world, path, body)
    await post(world, "/init", {"phone_number": "41791234567"})
    keys = [heard.key for heard in world.services.received]
    assert all(keys)
    assert not any(secret in key for key in keys for secret in ("79123", NONCE, CODE))
    assert keys[0] == keys[3], "one number, one order"
    assert keys[1] == keys[2], "one nonce, one order"


async def test_codes_nonces_and_tokens_are_in_no_log_line_record_or_metric(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken on purpose")

    with capture_logs() as logged:
        for path, body in CALLS:
            await post(world, path, body)
        monkeypatch.setattr("services.gateway.phone.validated", broken)
        failed = await post(world, f"/register/{CODE}/{NONCE}", NAMES)
        assert code(failed) == (500, "unknown")
        assert (await post(world, f"/register/{CODE}/{NONCE}/more", NAMES)).status_code == 404
        assert (await world.http.get(f"/register/{CODE}/{NONCE}")).status_code == 405
    assert [entry["path"] for entry in logged if entry["event"] == "request failed"] == ["/register/…"]
    records = " ".join(repr((record.key, record.value, record.headers)) for record in world.services.records)
    metrics = generate_latest(REGISTRY).decode()
    assert 'method="register"' in metrics
    for text in (repr(logged), records, metrics):
        assert NONCE not in text
        assert CODE not in text
        assert TOKEN not in text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"phone_number": None},
        {"phone_number": 41791234567},
        {"phone_number": {"$gt": ""}},
        {"phone_number": [NUMBER]},
    ],
)
async def test_what_is_no_text_is_no_phone_number(world: World, body: dict[str, Any]) -> None:
    assert code(await post(world, "/init", body)) == (400, "invalid_phone_number")
    assert world.services.received == []


async def test_a_number_of_a_wrong_type_is_refused_at_a_registration_too(world: World) -> None:
    answer = await post(world, CALLS[2][0], {**NAMES, "phone_number": {"$gt": ""}})
    assert code(answer) == (400, "invalid_phone_number")
    assert world.services.received == []


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_what_is_not_one_json_object_is_refused(world: World, path: str, body: dict[str, Any]) -> None:
    duplicate = json.dumps(body)[:-1].encode() + b', "first_name": "a", "first_name": "b"}'
    for content in (b"{", b"[]", b'"text"', b"\xff", b'{"a":NaN}', b"[" * 50_000, duplicate):
        assert code(await post(world, path, content)) == (400, "malformed_body")
    assert code(await post(world, path, b"")) == (400, "body_missing")
    assert code(await post(world, path, b" " * (64 * 1024 + 1))) == (413, "body_too_large")
    assert world.services.received == []


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_unknown_fields_are_named(world: World, path: str, body: dict[str, Any]) -> None:
    for name in ("more", "key", "id"):
        answer = await post(world, path, {**body, name: "secret"})
        assert code(answer) == (422, "validation_failed")
        assert [error["path"] for error in answer.json()["meta"]["errors"]] == [name]
        assert "secret" not in answer.text
    assert world.services.received == []


async def test_what_stands_in_the_path_may_not_stand_in_the_body(world: World) -> None:
    for name in ("code", "nonce"):
        answer = await post(world, CALLS[2][0], {**NAMES, name: "other"})
        assert code(answer) == (422, "validation_failed")
    assert world.services.received == []


@pytest.mark.parametrize("name", ["code", "nonce", "clientid"])
@pytest.mark.parametrize("value", [{"$gt": ""}, None, 1, ["a"], True])
async def test_verify_takes_texts_alone(world: World, name: str, value: Any) -> None:
    answer = await post(world, "/verify", {**CALLS[1][1], name: value})
    assert code(answer) == (422, "validation_failed")
    assert [error["path"] for error in answer.json()["meta"]["errors"]] == [name]
    assert world.services.received == []


@pytest.mark.parametrize("name", ["first_name", "last_name"])
@pytest.mark.parametrize("value", [{"$gt": ""}, None, 1, "a" * 201])
async def test_register_takes_names_of_bounded_length_alone(world: World, name: str, value: Any) -> None:
    assert code(await post(world, CALLS[2][0], {**NAMES, name: value})) == (422, "validation_failed")
    assert world.services.received == []


async def test_a_missing_field_of_a_verification_is_named(world: World) -> None:
    answer = await post(world, "/verify", {"phone_number": NUMBER})
    assert code(answer) == (422, "validation_failed")
    assert {error["path"] for error in answer.json()["meta"]["errors"]} == {"code", "nonce", "clientid", "phone_number"}


@pytest.mark.parametrize(("path", "body"), CALLS)
@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_another_verb_is_refused(world: World, path: str, body: dict[str, Any], verb: str) -> None:
    answer = await world.http.request(verb, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


async def test_browsers_may_ask_from_allowed_pages(world: World) -> None:
    answer = await world.http.options("/init", headers={"origin": ORIGIN, "access-control-request-method": "POST"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, ORIGIN)


@pytest.mark.parametrize(
    "path",
    [
        "/register",
        f"/register/{CODE}",
        f"/register/{CODE}/{NONCE}/x",
        f"/register//{NONCE}",
        f"/register/{CODE}%2F{NONCE}",
        f"//register/{CODE}/{NONCE}",
        "/INIT",
        "/init;a=b",
        "/verify%00",
    ],
)
async def test_only_the_very_path_leads_there(world: World, path: str) -> None:
    answer = await post(world, path, NAMES)
    assert answer.status_code == 404
    assert world.services.received == []


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (Refused("invalid", "invalid_phone_number"), 400),
        (Refused("forbidden", "phone_number_not_allowed", country="DE"), 403),
        (Refused("throttled", "throttled", retry_after=77), 429),
        (Refused("not_found", "phone_code_not_found"), 404),
        (Refused("unauthenticated", "incorrect_phone_code"), 401),
        (Refused("conflict", "user_already_registered"), 409),
    ],
)
async def test_auths_refusals_have_the_rpc_error_body(world: World, refused: Refused, status: int) -> None:
    for (path, body), wire in zip(CALLS, list(world.services.replies), strict=True):
        world.services.replies[wire] = lambda _envelope: refused
        answer = await post(world, path, body)
        assert code(answer) == (status, refused.body["code"])
        assert answer.json()["meta"]["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["content-type"] == "application/json"
        if status == 429:
            assert answer.headers["retry-after"] == "77"


async def test_an_old_token_is_not_in_the_way_of_a_login(world: World) -> None:
    assert (await post(world, *CALLS[0], authorization="bearer expired")).status_code == 200
    assert world.services.received[0].caller.kind == "anonymous"


async def test_a_repeat_under_one_idempotency_key_is_one_message(world: World) -> None:
    for _ in range(2):
        assert (await post(world, *CALLS[0], idempotency_key="a key")).text == NONCE
    assert len({heard.id for heard in world.services.received}) == 1
    assert code(await post(world, *CALLS[0], idempotency_key="")) == (400, "invalid_idempotency_key")


async def test_there_is_no_login_without_a_code(world: World) -> None:
    assert code(await post(world, "/login", {"userid": "user_1", "clientid": "client_1"})) == (404, "not_found")
    assert world.services.received == []


async def test_where_the_settings_say_so_tests_log_in_without_a_code(
    world: World, make_settings: Callable[..., GatewaySettings]
) -> None:
    settings = make_settings(topic_prefix=world.settings.topic_prefix, test_login=True)
    view = json.dumps({"token": TOKEN}).encode()
    world.services.replies["auth.log-in-for-testing"] = lambda _envelope: world.services.sealer.seal(
        "gateway", view
    ).encode()
    async with (
        create(settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20.0) as http,
    ):
        answer = await http.post("/login", json={"userid": "user_1", "clientid": "client_1"})
        assert (answer.status_code, answer.text) == (200, TOKEN)
        wrong = await http.post("/login", json={"userid": {"$gt": ""}, "clientid": "client_1"})
        assert wrong.status_code == 422


def test_in_production_a_login_without_a_code_is_a_start_up_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "kafka_bootstrap": "127.0.0.1:9092",
        "sealing_keys": "k1:" + "A" * 43 + "=",
        "issuer": "https://nest.example",
        "internal_keys": INTERNAL_KEYS[0],
        "stripe_webhook_secrets": "whsec_1",
        "stripe_livemode": True,
    }
    load(GatewaySettings, **given)
    monkeypatch.setenv("NEST_TEST_LOGIN", "true")
    with pytest.raises(SettingsError, match="NEST_TEST_LOGIN: is refused in production"):
        load(GatewaySettings, **given)
