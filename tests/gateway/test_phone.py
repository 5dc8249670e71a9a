from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from services.gateway.app import create
from services.gateway.settings import GatewaySettings
from shared.bus.envelope import Envelope
from shared.messages import MESSAGES
from shared.sealing import Sealer
from tests.gateway.conftest import ORIGIN, GatewayStack
from tests.gateway.fake_services import Refused
from tests.metrics import exported_names
from tests.readable import contains

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
def auth(stack: GatewayStack) -> GatewayStack:
    """Auth, which accepts every message."""

    def sealed(view: dict[str, Any]) -> Callable[[Envelope], bytes]:
        return lambda _envelope: stack.services.sealer.seal("gateway", json.dumps(view).encode()).encode()

    registered = {"id": "user_1", **NAMES, "phone_number": "+41791234567"}
    stack.services.replies |= {
        "auth.send-phone-code": sealed({"nonce": NONCE}),
        "auth.verify-phone-code": sealed({"token": TOKEN}),
        "auth.register-phone-user": lambda _envelope: registered,
    }
    return stack


async def post(stack: GatewayStack, path: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return await stack.http.post(path, content=content, headers=headers)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def fields_of(envelope: Envelope) -> dict[str, Any]:
    """All fields of a message, as its service reads them."""
    return MESSAGES[envelope.wire].model_validate_json(envelope.body).model_dump(mode="json")


async def test_init_responds_with_the_nonce_as_plain_text(stack: GatewayStack) -> None:
    response = await post(stack, "/init", {"phone_number": NUMBER}, x_request_id="mine")
    assert (response.status_code, response.text) == (200, NONCE)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-request-id"] == "mine"
    assert response.headers["cache-control"] == "no-store"
    [envelope] = stack.services.received
    assert envelope.wire == "auth.send-phone-code"
    assert fields_of(envelope) == {"phone_number": NUMBER, "locales": []}
    assert envelope.caller.client_ip == "127.0.0.1"


async def test_init_takes_locales_only_from_accept_language(stack: GatewayStack) -> None:
    await post(stack, "/init", {"phone_number": NUMBER}, accept_language="gsw-CH, de;q=0.8, *;q=0.1")
    [envelope] = stack.services.received
    assert fields_of(envelope) == {"phone_number": NUMBER, "locales": ["gsw-CH", "de"]}
    response = await post(stack, "/init", {"phone_number": NUMBER, "locales": ["de"]})
    assert code(response) == (400, "validation_failed")
    response = await post(stack, "/init", {"phone_number": NUMBER}, accept_language="{$gt: 1}; drop, *")
    assert response.status_code == 200
    assert fields_of(stack.services.received[-1])["locales"] == []


async def test_repeat_with_another_accept_language_is_the_same_message(stack: GatewayStack) -> None:
    for language in ("de", "fr"):
        response = await post(
            stack, "/init", {"phone_number": NUMBER}, accept_language=language, idempotency_key="a key"
        )
        assert response.status_code == 200
    first, second = stack.services.received
    assert (first.id, first.fingerprint) == (second.id, second.fingerprint)


async def test_verify_responds_with_the_token_and_seals_its_fields(stack: GatewayStack) -> None:
    response = await post(stack, *CALLS[1])
    assert (response.status_code, response.text) == (200, TOKEN)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    [envelope] = stack.services.received
    fields = fields_of(envelope)
    sealer: Sealer = stack.services.sealer
    assert {name: sealer.unseal("auth", fields[name]) for name in ("code", "nonce")} == {
        "code": CODE.encode(),
        "nonce": NONCE.encode(),
    }
    assert fields["clientid"] == "client_1"


async def test_register_responds_with_the_user_and_seals_path_fields(stack: GatewayStack) -> None:
    response = await post(stack, f"/register/{CODE}/{NONCE}", {**NAMES, "phone_number": NUMBER})
    assert (response.status_code, response.json()["id"]) == (200, "user_1")
    assert response.headers["content-type"] == "application/json"
    [envelope] = stack.services.received
    fields = fields_of(envelope)
    assert stack.services.sealer.unseal("auth", fields["code"]) == CODE.encode()
    assert stack.services.sealer.unseal("auth", fields["nonce"]) == NONCE.encode()
    assert {name: fields[name] for name in (*NAMES, "phone_number")} == {**NAMES, "phone_number": NUMBER}


async def test_ordering_keys_contain_no_number_nonce_or_code(stack: GatewayStack) -> None:
    for path, body in CALLS:
        await post(stack, path, body)
    await post(stack, "/init", {"phone_number": "41791234567"})
    keys = [envelope.key for envelope in stack.services.received]
    # Among the digits of a hash those of a code, or some of a number, may occur by chance.
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in keys)
    assert not any(contains(key, secret) for key in keys for secret in (NUMBER, "791234567", NONCE, CODE))
    assert keys[0] == keys[3], "one ordering key per number"
    assert keys[1] == keys[2], "one ordering key per nonce"


async def test_secrets_appear_in_no_log_record_or_metric(stack: GatewayStack, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken on purpose")

    with capture_logs() as logs:
        for path, body in CALLS:
            await post(stack, path, body)
        monkeypatch.setattr("services.gateway.phone.validated", fail)
        failed = await post(stack, f"/register/{CODE}/{NONCE}", NAMES)
        assert code(failed) == (500, "unknown")
        assert (await post(stack, f"/register/{CODE}/{NONCE}/more", NAMES)).status_code == 404
        assert (await stack.http.get(f"/register/{CODE}/{NONCE}")).status_code == 405
    assert [entry["path"] for entry in logs if entry["event"] == "request failed"] == ["/register/…"]
    records = " ".join(repr((record.key, record.value, record.headers)) for record in stack.services.records)
    metrics = exported_names()
    assert 'method="register"' in metrics
    for text in (repr(logs), records, metrics):
        assert not [secret for secret in (NONCE, CODE, TOKEN) if contains(text, secret)]


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
async def test_phone_number_must_be_a_string(stack: GatewayStack, body: dict[str, Any]) -> None:
    assert code(await post(stack, "/init", body)) == (400, "invalid_phone_number")
    assert stack.services.received == []


async def test_phone_number_of_a_registration_must_be_a_string(stack: GatewayStack) -> None:
    response = await post(stack, CALLS[2][0], {**NAMES, "phone_number": {"$gt": ""}})
    assert code(response) == (400, "invalid_phone_number")
    assert stack.services.received == []


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_body_that_is_not_one_json_object_is_refused(
    stack: GatewayStack, path: str, body: dict[str, Any]
) -> None:
    duplicate = json.dumps(body)[:-1].encode() + b', "first_name": "a", "first_name": "b"}'
    for content in (b"{", b"[]", b'"text"', b"\xff", b'{"a":NaN}', b"[" * 50_000, duplicate):
        assert code(await post(stack, path, content)) == (400, "malformed_body")
    assert code(await post(stack, path, b"")) == (400, "body_missing")
    assert code(await post(stack, path, b" " * (64 * 1024 + 1))) == (413, "body_too_large")
    assert stack.services.received == []


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_unknown_fields_are_named(stack: GatewayStack, path: str, body: dict[str, Any]) -> None:
    for name in ("more", "key", "id"):
        response = await post(stack, path, {**body, name: "secret"})
        assert code(response) == (400, "validation_failed")
        assert [error["path"] for error in response.json()["meta"]["errors"]] == [name]
        assert "secret" not in response.text
    assert stack.services.received == []


async def test_path_fields_in_the_body_are_refused(stack: GatewayStack) -> None:
    for name in ("code", "nonce"):
        response = await post(stack, CALLS[2][0], {**NAMES, name: "other"})
        assert code(response) == (400, "validation_failed")
    assert stack.services.received == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("code", None),
        ("nonce", None),
        *itertools.product(["code", "nonce", "clientid"], [{"$gt": ""}, 1, 1.5, ["a"], True]),
    ],
)
async def test_fields_of_verify_must_be_strings(stack: GatewayStack, name: str, value: Any) -> None:
    response = await post(stack, "/verify", {**CALLS[1][1], name: value})
    assert code(response) == (400, "validation_failed")
    assert [error["path"] for error in response.json()["meta"]["errors"]] == [name]
    assert stack.services.received == []


@pytest.mark.parametrize("client", [{}, {"clientid": None}, {"clientid": ""}])
async def test_verify_needs_no_client(stack: GatewayStack, client: dict[str, Any]) -> None:
    response = await post(stack, "/verify", {"code": CODE, "nonce": NONCE, **client})
    assert (response.status_code, response.text) == (200, TOKEN)
    [envelope] = stack.services.received
    assert not fields_of(envelope)["clientid"]


async def test_verify_refuses_a_client_of_over_200_characters(stack: GatewayStack) -> None:
    assert code(await post(stack, "/verify", {**CALLS[1][1], "clientid": "a" * 201})) == (400, "validation_failed")


@pytest.mark.parametrize("name", ["first_name", "last_name"])
@pytest.mark.parametrize("value", [{"$gt": ""}, None, 1, "a" * 201])
async def test_names_of_register_have_a_maximum_length(stack: GatewayStack, name: str, value: Any) -> None:
    assert code(await post(stack, CALLS[2][0], {**NAMES, name: value})) == (400, "validation_failed")
    assert stack.services.received == []


async def test_missing_fields_of_verify_are_named(stack: GatewayStack) -> None:
    response = await post(stack, "/verify", {"phone_number": NUMBER})
    assert code(response) == (400, "validation_failed")
    assert {error["path"] for error in response.json()["meta"]["errors"]} == {"code", "nonce", "phone_number"}


@pytest.mark.parametrize(("path", "body"), CALLS)
@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
async def test_other_http_methods_are_refused(stack: GatewayStack, path: str, body: dict[str, Any], verb: str) -> None:
    response = await stack.http.request(verb, path)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


async def test_preflight_from_an_allowed_origin_is_accepted(stack: GatewayStack) -> None:
    response = await stack.http.options("/init", headers={"origin": ORIGIN, "access-control-request-method": "POST"})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (204, ORIGIN)


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
async def test_similar_paths_are_not_found(stack: GatewayStack, path: str) -> None:
    response = await post(stack, path, NAMES)
    assert response.status_code == 404
    assert stack.services.received == []


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
async def test_refusals_of_auth_have_the_rpc_error_format(stack: GatewayStack, refused: Refused, status: int) -> None:
    for (path, body), wire in zip(CALLS, list(stack.services.replies), strict=True):
        stack.services.replies[wire] = lambda _envelope: refused
        response = await post(stack, path, body)
        assert code(response) == (status, refused.body["code"])
        assert response.json()["meta"]["request_id"] == response.headers["x-request-id"]
        assert response.headers["content-type"] == "application/json"
        if status == 429:
            assert response.headers["retry-after"] == "77"


async def test_expired_bearer_token_does_not_prevent_login(stack: GatewayStack) -> None:
    assert (await post(stack, *CALLS[0], authorization="bearer expired")).status_code == 200
    assert stack.services.received[0].caller.kind == "anonymous"


async def test_repeat_with_an_idempotency_key_has_the_same_message_id(stack: GatewayStack) -> None:
    for _ in range(2):
        assert (await post(stack, *CALLS[0], idempotency_key="a key")).text == NONCE
    assert len({envelope.id for envelope in stack.services.received}) == 1
    assert code(await post(stack, *CALLS[0], idempotency_key="")) == (400, "invalid_idempotency_key")


async def test_login_without_a_code_does_not_exist_by_default(stack: GatewayStack) -> None:
    assert code(await post(stack, "/login", {"userid": "user_1", "clientid": "client_1"})) == (404, "not_found")
    assert stack.services.received == []


async def test_test_login_needs_no_code(stack: GatewayStack, make_settings: Callable[..., GatewaySettings]) -> None:
    settings = make_settings(topic_prefix=stack.settings.topic_prefix, test_login=True)
    view = json.dumps({"token": TOKEN}).encode()
    stack.services.replies["auth.log-in-for-testing"] = lambda _envelope: stack.services.sealer.seal(
        "gateway", view
    ).encode()
    async with (
        create(settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20.0) as http,
    ):
        response = await http.post("/login", json={"userid": "user_1", "clientid": "client_1"})
        assert (response.status_code, response.text) == (200, TOKEN)
        complete = {"userid": "user_1", "clientid": "client_1"}
        for field in complete:
            for value in ({"$gt": ""}, None, 1, True, ["a"], ""):
                wrong = await http.post("/login", json={**complete, field: value})
                assert code(wrong) == (400, "validation_failed")
            missing = {name: value for name, value in complete.items() if name != field}
            assert code(await http.post("/login", json=missing)) == (400, "validation_failed")
        assert code(await http.post("/login")) == (400, "body_missing")
        assert code(await http.post("/login", content=b"null")) == (400, "malformed_body")
