from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from structlog.testing import capture_logs

from services.gateway import error_messages
from services.gateway.accounts import ROUTES
from services.gateway.app import create
from services.gateway.settings import GatewaySettings
from shared.bus.envelope import Envelope
from shared.messages import MESSAGES, Sealed
from tests.gateway.conftest import INTERNAL_KEYS, ISSUER, GatewayStack
from tests.gateway.fake_services import Refused
from tests.metrics import exported_names
from tests.readable import contains

PASSWORD = "a/password with % and ? in it"
UUID = "17ac43a8-f3b9-40be-a3b4-9eaca99b529a"
KEY = "2YP47A5-YEWM1FG-MET9XB1-N6DN56N"
TOKEN = "header.claims.signature"
EMAIL = "ada@example.com"
SECRETS = {
    "password": PASSWORD,
    "uuid": UUID,
    "owneruuid": UUID,
    "apikey": KEY,
    "token": TOKEN,
    "owner_token": TOKEN,
    "deletion_token": TOKEN,
}
FIELDS = {**SECRETS, "firstname": "Ada", "lastname": "Lovelace", "email": EMAIL, "appname": "An app", "username": "ada"}
EXPECTED = {
    ("POST", "/appowner/create"): ("register-owner", 200, "firstname lastname email password"),
    ("GET", f"/appowner/uuid/{UUID}"): ("get-owner", 200, ""),
    ("POST", "/appowner/login"): ("log-in-owner", 200, "email password"),
    ("POST", "/appowner/update"): ("update-owner", 202, "uuid firstname lastname email password"),
    ("DELETE", "/appowner/delete"): ("delete-owner", 200, "deletion_token uuid"),
    ("POST", "/applications/create"): ("create-application", 200, "owneruuid appname"),
    ("DELETE", "/applications/delete"): ("delete-application", 202, "apikey"),
    ("POST", "/users/signup"): ("sign-up", 202, "apikey username email password"),
    ("POST", "/users/signin"): ("sign-in", 200, "uuid apikey"),
    ("POST", "/users/signwithemail"): ("sign-in-with-email", 200, "apikey email password"),
    ("GET", f"/users/islogged/{TOKEN}"): ("check-sign-in", 200, ""),
    ("POST", "/users/userdata"): ("get-application-user", 200, "token"),
    ("PUT", "/users/update"): ("update-application-user", 202, "token username email password"),
    ("POST", "/applications/update"): ("update-application", 202, "apikey"),
    ("POST", "/appowner/forgot"): ("forgot-owner-password", 202, "email"),
    ("POST", "/appowner/reset"): ("reset-password", 202, "token password"),
    ("POST", "/users/forgot"): ("forgot-password", 202, "apikey email"),
    ("POST", "/users/reset"): ("reset-password", 202, "token password"),
    ("POST", "/users/sendverification"): ("send-verification", 202, "apikey email"),
    ("POST", "/users/verify"): ("verify-address", 202, "token"),
}
CALLS = list(EXPECTED)
WITH_BODY = [route for route, (_, _, fields) in EXPECTED.items() if fields]


@pytest.fixture(autouse=True)
def auth(stack: GatewayStack) -> GatewayStack:
    """Auth, which sends the same view as reply to every message."""
    for wire in [f"auth.{name}" for name, _, _ in EXPECTED.values()]:
        stack.services.replies[wire] = lambda envelope: view(stack, envelope)
    return stack


def view(stack: GatewayStack, envelope: Envelope) -> bytes:
    body = json.dumps({"reply_to": envelope.wire}).encode()
    sealed = MESSAGES[envelope.wire].reply_sealed
    return stack.services.sealer.seal("gateway", body).encode() if sealed else body


@pytest.fixture(scope="module")
async def old_clients(
    shared_stack: GatewayStack, make_settings: Callable[..., GatewaySettings]
) -> AsyncIterator[httpx.AsyncClient]:
    """HTTP client of a gateway that serves old clients."""
    settings = make_settings(topic_prefix=shared_stack.settings.topic_prefix, old_clients=True)
    async with (
        create(settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20.0) as http,
    ):
        yield http


async def call(stack: GatewayStack, route: tuple[str, str], body: Any = None, **headers: str) -> httpx.Response:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return await stack.http.request(*route, json=body, headers=headers)


def valid_body(route: tuple[str, str]) -> dict[str, Any] | None:
    return {name: FIELDS[name] for name in EXPECTED[route][2].split()} or None


def received_fields(stack: GatewayStack) -> dict[str, Any]:
    """Fields of the only message that auth received, unsealed."""
    [envelope] = stack.services.received
    message = MESSAGES[envelope.wire].model_validate_json(envelope.body)
    values = {name: getattr(message, name) for name in type(message).model_fields if name != "key"}
    return {
        name: stack.services.sealer.unseal_secret("auth", value) if isinstance(value, Sealed) else value
        for name, value in values.items()
        if value is not None
    }


@pytest.mark.parametrize("route", CALLS)
async def test_each_route_sends_one_message_and_responds_with_its_status(
    stack: GatewayStack, route: tuple[str, str]
) -> None:
    name, status, _ = EXPECTED[route]
    response = await call(stack, route, valid_body(route))
    assert (response.status_code, response.json()) == (status, {"reply_to": f"auth.{name}"})
    [envelope] = stack.services.received
    assert envelope.wire == f"auth.{name}"
    assert (envelope.caller.kind, envelope.caller.client_ip) == ("anonymous", "127.0.0.1")
    path_fields = {"get-owner": {"uuid": UUID}, "check-sign-in": {"token": TOKEN}}
    defaults = {"passwordless": False, "verified_only": False} if name == "create-application" else {}
    assert received_fields(stack) == {**defaults, **(valid_body(route) or path_fields[name])}


def test_table_has_every_documented_route() -> None:
    assert {(each.verb, each.path.partition("/{")[0]) for each in ROUTES} == {
        (verb, path.removesuffix(f"/{UUID}").removesuffix(f"/{TOKEN}")) for verb, path in CALLS
    }


async def test_secrets_appear_in_no_kafka_record_log_or_metric(
    stack: GatewayStack, old_clients: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken on purpose")

    in_path = f"/appowner/emailpassword/{quote(EMAIL)}/{quote(PASSWORD, safe='')}"
    with capture_logs() as logs:
        for route in CALLS:
            await call(stack, route, valid_body(route))
        assert (await old_clients.get(in_path)).status_code == 200
        for similar in (f"/{in_path}", f"{in_path}/more", in_path.upper(), f"/x/..{in_path}", f"{in_path}?{PASSWORD}"):
            await old_clients.get(similar)
            await stack.http.get(similar, headers={"x-request-id": PASSWORD, "traceparent": TOKEN, "origin": PASSWORD})
        await old_clients.post(in_path)
        monkeypatch.setattr("services.gateway.accounts.validated", broken)
        for path in (in_path, f"/users/islogged/{TOKEN}", f"/appowner/uuid/{UUID}"):
            assert (await old_clients.get(path)).status_code == 500
    failed = {entry["path"] for entry in logs if entry["event"] == "request failed"}
    assert failed == {"/appowner/emailpassword/…", "/users/islogged/…", "/appowner/uuid/…"}
    records = " ".join(repr((record.key, record.value, record.headers)) for record in stack.services.records)
    metrics = exported_names()
    assert 'method="appowner/emailpassword",status="200",version="accounts"' in metrics
    for text in (repr(logs), records, metrics):
        assert not [secret for secret in (PASSWORD, quote(PASSWORD), UUID, KEY, TOKEN) if contains(text, secret)]


@pytest.mark.parametrize("route", WITH_BODY)
@pytest.mark.parametrize("wrong", [{"$gt": ""}, ["a"], 1, True, None])
async def test_field_that_is_not_a_string_is_named(stack: GatewayStack, route: tuple[str, str], wrong: Any) -> None:
    optional = {"username", "email", "password"} if route[0] == "PUT" else set()
    optional |= {"password"} if route[1] == "/appowner/update" else set()
    for name in EXPECTED[route][2].split():
        if wrong is None and name in optional:
            continue
        response = await call(stack, route, {**(valid_body(route) or {}), name: wrong})
        assert (response.status_code, response.json()["code"]) == (422, "validation_failed")
        assert {error["path"] for error in response.json()["meta"]["errors"]} == {name}
    assert stack.services.received == []


@pytest.mark.parametrize("route", WITH_BODY)
async def test_missing_and_unknown_fields_are_named(stack: GatewayStack, route: tuple[str, str]) -> None:
    body = valid_body(route) or {}
    missing = next(iter(body))
    response = await call(stack, route, {**{name: body[name] for name in body if name != missing}, "more": PASSWORD})
    assert response.status_code == 422
    assert {error["path"] for error in response.json()["meta"]["errors"]} == {missing, "more"}
    assert PASSWORD not in response.text


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "body_missing"), (b"{", "malformed_body"), (b"[]", "malformed_body"), (b"'", "malformed_body")],
)
async def test_body_that_is_not_an_object_is_refused(stack: GatewayStack, body: bytes, code: str) -> None:
    response = await stack.http.post("/users/signup", content=body)
    assert (response.status_code, response.json()["code"]) == (400, code)


async def test_empty_and_long_names_are_refused(stack: GatewayStack) -> None:
    for name in ("", "x" * 256):
        response = await call(
            stack, ("POST", "/users/signup"), {**(valid_body(("POST", "/users/signup")) or {}), "username": name}
        )
        assert [error["path"] for error in response.json()["meta"]["errors"]] == ["username"]


@pytest.mark.parametrize("route", CALLS)
async def test_other_http_methods_are_refused(stack: GatewayStack, route: tuple[str, str]) -> None:
    response = await stack.http.request("PATCH", route[1])
    assert (response.status_code, response.json()["code"]) == (405, "method_not_supported")
    assert route[0] in response.headers["allow"]


@pytest.mark.parametrize(("kind", "status"), [("unauthenticated", 401), ("forbidden", 403)])
async def test_401_and_403_have_auth_beside_the_code(stack: GatewayStack, kind: str, status: int) -> None:
    for code in ("wrong_credentials", "not_logged_in", "application_ended"):
        stack.services.replies["auth.sign-in"] = lambda _, code=code: Refused(kind, code)
        response = await call(stack, ("POST", "/users/signin"), valid_body(("POST", "/users/signin")))
        assert response.status_code == status
        request_id = response.headers["x-request-id"]
        docs, meta = f"/reference#error-{code}", {"request_id": request_id}
        message = error_messages.MESSAGES[code]
        assert response.json() == {"auth": False, "code": code, "message": message, "docs": docs, "meta": meta}


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (Refused("not_found", "owner_not_found"), 404),
        (Refused("conflict", "email_taken"), 409),
        (Refused("validation_failed", "validation_failed", errors=[{"path": "email", "message": "no"}]), 422),
        (Refused("throttled", "throttled", retry_after=77), 429),
        (Refused("unavailable", "unavailable", retry_after=3), 503),
    ],
)
async def test_other_errors_have_the_format_of_rpc(stack: GatewayStack, refused: Refused, status: int) -> None:
    stack.services.replies["auth.sign-up"] = lambda _: refused
    response = await call(stack, ("POST", "/users/signup"), valid_body(("POST", "/users/signup")))
    assert response.status_code == status
    assert response.json().keys() <= {"code", "message", "docs", "meta"}
    if status in (429, 503):
        assert response.headers["retry-after"] == str(refused.body["meta"]["retry_after"])


@pytest.mark.parametrize(
    ("refused", "status"),
    [
        (Refused("unauthenticated", "wrong_credentials"), 401),
        (Refused("forbidden", "application_ended"), 403),
        (Refused("not_found", "owner_not_found"), 404),
        (Refused("conflict", "email_taken"), 409),
        (Refused("validation_failed", "validation_failed", errors=[]), 422),
        (Refused("throttled", "throttled", retry_after=77), 429),
        (Refused("unavailable", "unavailable", retry_after=3), 503),
    ],
)
@pytest.mark.parametrize("route", CALLS)
async def test_errors_for_old_clients_have_the_fields_of_the_original(
    stack: GatewayStack, old_clients: httpx.AsyncClient, route: tuple[str, str], refused: Refused, status: int
) -> None:
    stack.services.replies[f"auth.{EXPECTED[route][0]}"] = lambda _: refused
    response = await old_clients.request(*route, json=valid_body(route))
    body = response.json()
    assert (response.status_code, body["code"]) == (status, refused.body["code"])
    assert (body["auth"], body["status"], body["affectedRows"]) == (False, status, 0)
    assert body["message"]
    assert body["meta"]["request_id"] == response.headers["x-request-id"]


async def test_errors_of_the_gateway_for_old_clients_have_the_fields_too(old_clients: httpx.AsyncClient) -> None:
    for content, status in ((b"", 400), (b"{", 400), (b"{}", 422), (b" " * 70_000, 413)):
        response = await old_clients.post("/users/signup", content=content)
        body = response.json()
        assert response.status_code == body["status"] == status
        assert (body["auth"], body["affectedRows"], bool(body["message"])) == (False, 0, True)


async def test_messages_of_one_address_share_a_hashed_ordering_key(stack: GatewayStack) -> None:
    for route in (("POST", "/appowner/create"), ("POST", "/appowner/login")):
        for email in (EMAIL, EMAIL.upper(), "other@example.com"):
            await call(stack, route, {**(valid_body(route) or {}), "email": email})
    keys = [envelope.key for envelope in stack.services.received]
    assert len(set(keys)) == 2
    assert keys.count(keys[0]) == 4
    assert EMAIL not in "".join(keys)
    stack.services.reset()
    for key in (KEY, "another"):
        await call(stack, ("POST", "/users/signwithemail"), {"apikey": key, "email": EMAIL, "password": PASSWORD})
    assert len({envelope.key for envelope in stack.services.received}) == 2


async def test_idempotency_key_belongs_to_one_route(stack: GatewayStack) -> None:
    route = ("POST", "/applications/create")
    for appname in ("An app", "An app", "Another"):
        await call(stack, route, {"owneruuid": UUID, "appname": appname}, idempotency_key="k1")
    first, again, other = stack.services.received
    assert first.id == again.id == other.id
    assert first.fingerprint == again.fingerprint != other.fingerprint
    await call(stack, ("DELETE", "/applications/delete"), {"apikey": KEY}, idempotency_key="k1")
    assert stack.services.received[-1].id != first.id


TAKE_OWNER_TOKEN = [
    ("POST", "/appowner/update"),
    ("POST", "/applications/update"),
    ("DELETE", "/applications/delete"),
]


@pytest.mark.parametrize("route", TAKE_OWNER_TOKEN)
async def test_owner_token_is_read_from_the_authorization_header(stack: GatewayStack, route: tuple[str, str]) -> None:
    response = await call(stack, route, valid_body(route), authorization=f"Bearer   {TOKEN}")
    assert response.status_code == 202
    assert received_fields(stack) == {**(valid_body(route) or {}), "owner_token": TOKEN}
    assert {envelope.caller.kind for envelope in stack.services.received} == {"anonymous"}


@pytest.mark.parametrize("route", TAKE_OWNER_TOKEN)
async def test_owner_token_is_taken_from_no_other_place(stack: GatewayStack, route: tuple[str, str]) -> None:
    for header in (f"internal {INTERNAL_KEYS[0]}", f"basic {TOKEN}", TOKEN):
        assert (await call(stack, route, valid_body(route), authorization=header)).status_code == 202
        assert "owner_token" not in received_fields(stack)
        stack.services.received.clear()
    response = await call(stack, route, {**(valid_body(route) or {}), "owner_token": TOKEN})
    assert [error["path"] for error in response.json()["meta"]["errors"]] == ["owner_token"]
    assert stack.services.received == []


async def test_idempotency_key_with_another_owner_token_is_another_request(stack: GatewayStack) -> None:
    route = TAKE_OWNER_TOKEN[0]
    for token in ("a.b.c", "a.b.c", "d.e.f"):
        await call(stack, route, valid_body(route), idempotency_key="k2", authorization=f"bearer {token}")
    first, again, other = (envelope.fingerprint for envelope in stack.services.received)
    assert first == again != other


async def test_old_clients_get_no_owner_token_from_the_password_in_the_url(
    stack: GatewayStack, old_clients: httpx.AsyncClient
) -> None:
    view = stack.services.sealer.seal("gateway", json.dumps({"uuid": UUID, "token": TOKEN}).encode()).encode()
    stack.services.replies["auth.log-in-owner"] = lambda _: view
    assert (await old_clients.get(f"/appowner/emailpassword/{EMAIL}/x")).json() == {"uuid": UUID}
    body = {"email": EMAIL, "password": PASSWORD}
    assert (await old_clients.post("/appowner/login", json=body)).json() == {"uuid": UUID, "token": TOKEN}


async def test_authorization_header_is_ignored(stack: GatewayStack) -> None:
    for header in ("bearer x", f"internal {INTERNAL_KEYS[0]}", "basic eDp5"):
        response = await call(stack, ("POST", "/users/userdata"), {"token": TOKEN}, authorization=header)
        assert response.status_code == 200
    assert {envelope.caller.kind for envelope in stack.services.received} == {"anonymous"}


async def test_password_in_url_is_refused_without_old_clients(stack: GatewayStack) -> None:
    response = await stack.http.get(f"/appowner/emailpassword/{EMAIL}/{quote(PASSWORD, safe='')}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert stack.services.received == []


@pytest.mark.parametrize("password", [PASSWORD, "..", "a+b", "пароль", "{}", ""])
async def test_any_password_in_url_logs_an_old_client_in(
    stack: GatewayStack, old_clients: httpx.AsyncClient, password: str
) -> None:
    path = f"/appowner/emailpassword/{quote(EMAIL)}/{quote(password, safe='').replace('.', '%2E')}"
    assert (await old_clients.get(path)).status_code == 200
    assert received_fields(stack) == {"email": EMAIL, "password": password}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/appowner/emailpassword/{EMAIL}/%ff", 422),
        (f"/appowner/emailpassword/{EMAIL}/a/b", 404),
        (f"/appowner/emailpassword/{EMAIL}", 404),
        (f"/appowner/emailpassword%2F{EMAIL}/a", 404),
        (f"/appowner%2Femailpassword/{EMAIL}/a", 404),
        (f"//appowner/emailpassword/{EMAIL}/a", 404),
        (f"/users/islogged/{TOKEN}//", 404),
        (f"/users/islogged/{TOKEN}/", 200),
        ("/users/islogged/", 200),
        ("/users/islogged/a%0Ab", 200),
    ],
)
async def test_ambiguous_paths_are_refused(
    stack: GatewayStack, old_clients: httpx.AsyncClient, path: str, status: int
) -> None:
    assert (
        await old_clients.request("GET", f"http://127.0.0.1:{old_clients.base_url.port}{path}")
    ).status_code == status
    assert len(stack.services.received) == (status == 200)


@pytest.mark.parametrize("path", ["/", "/accounts"])
async def test_page_lists_every_route_and_runs_no_script(
    stack: GatewayStack, old_clients: httpx.AsyncClient, path: str
) -> None:
    page = await stack.http.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "<script" not in page.text
    assert " style=" not in page.text
    for each in ROUTES:
        assert f"<code>{each.verb} {each.path}</code>" in page.text
    assert f"curl -s {ISSUER}/appowner/create" in page.text
    assert "emailpassword" not in page.text
    assert "<code>GET /appowner/emailpassword/{email}/{password}</code>" in (await old_clients.get(path)).text
