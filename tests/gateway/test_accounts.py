"""The routes of owners, applications and their users: what becomes a message, and what is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from prometheus_client import REGISTRY, generate_latest
from structlog.testing import capture_logs

from services.gateway.accounts import MESSAGES as MESSAGES_BY_CODE
from services.gateway.accounts import OLD_CLIENT_ROUTES
from services.gateway.accounts import ROUTES as ROUTE_TABLE
from services.gateway.app import create
from services.gateway.settings import GatewaySettings
from shared.bus.envelope import Envelope
from shared.messages import MESSAGES, Sealed
from shared.settings import SettingsError, load
from tests.gateway.conftest import INTERNAL_KEYS, ISSUER, World
from tests.gateway.fake_services import Refused

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
    "deletion_token": TOKEN,
}
FIELDS = {**SECRETS, "firstname": "Ada", "lastname": "Lovelace", "email": EMAIL, "appname": "An app", "username": "ada"}
ORDERS = {
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
}
ROUTES = list(ORDERS)
WITH_BODY = [route for route, (_, _, fields) in ORDERS.items() if fields]


@pytest.fixture(autouse=True)
def auth(world: World) -> World:
    """Auth, which answers everything with one view."""
    for wire in [f"auth.{name}" for name, _, _ in ORDERS.values()]:
        world.services.replies[wire] = lambda envelope: view(world, envelope)
    return world


def view(world: World, envelope: Envelope) -> bytes:
    body = json.dumps({"answer": "to " + envelope.wire}).encode()
    sealed = MESSAGES[envelope.wire].reply_sealed
    return world.services.sealer.seal("gateway", body).encode() if sealed else body


@pytest.fixture(scope="session")
async def old(running_world: World, make_settings: Callable[..., GatewaySettings]) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway that serves old clients, in the same world."""
    settings = make_settings(topic_prefix=running_world.settings.topic_prefix, old_clients=True)
    async with (
        create(settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20.0) as http,
    ):
        yield http


async def call(world: World, route: tuple[str, str], body: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.http.request(*route, json=body, headers=named)


def usual(route: tuple[str, str]) -> dict[str, Any] | None:
    return {name: FIELDS[name] for name in ORDERS[route][2].split()} or None


def said(world: World) -> dict[str, Any]:
    """What auth reads of the one message that came."""
    [envelope] = world.services.received
    message = MESSAGES[envelope.wire].model_validate_json(envelope.body)
    values = {name: getattr(message, name) for name in type(message).model_fields if name != "key"}
    return {
        name: world.services.sealer.unseal_secret("auth", value) if isinstance(value, Sealed) else value
        for name, value in values.items()
        if value is not None
    }


@pytest.mark.parametrize("route", ROUTES)
async def test_each_route_orders_one_thing_and_gives_its_status(world: World, route: tuple[str, str]) -> None:
    name, status, _ = ORDERS[route]
    answer = await call(world, route, usual(route))
    assert (answer.status_code, answer.json()) == (status, {"answer": f"to auth.{name}"})
    [envelope] = world.services.received
    assert envelope.wire == f"auth.{name}"
    assert (envelope.caller.kind, envelope.caller.client_ip) == ("anonymous", "127.0.0.1")
    in_path = {"get-owner": {"uuid": UUID}, "check-sign-in": {"token": TOKEN}}
    unsaid = {"passwordless": False} if name == "create-application" else {}
    assert said(world) == {**unsaid, **(usual(route) or in_path[name])}


def test_all_routes_of_the_page_are_there() -> None:
    assert len(ROUTE_TABLE) + len(OLD_CLIENT_ROUTES) + 1 == 15
    assert {(each.verb, each.path.partition("/{")[0]) for each in ROUTE_TABLE} == {
        (verb, path.removesuffix(f"/{UUID}").removesuffix(f"/{TOKEN}")) for verb, path in ROUTES
    }


async def test_no_secret_of_any_route_is_readable_in_kafka_in_logs_or_in_metrics(
    world: World, old: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken on purpose")

    in_path = f"/appowner/emailpassword/{quote(EMAIL)}/{quote(PASSWORD, safe='')}"
    with capture_logs() as logged:
        for route in ROUTES:
            await call(world, route, usual(route))
        assert (await old.get(in_path)).status_code == 200
        for smuggled in (f"/{in_path}", f"{in_path}/more", in_path.upper(), f"/x/..{in_path}", f"{in_path}?{PASSWORD}"):
            await old.get(smuggled)
            await world.http.get(smuggled, headers={"x-request-id": PASSWORD, "traceparent": TOKEN, "origin": PASSWORD})
        await old.post(in_path)
        monkeypatch.setattr("services.gateway.accounts.validated", broken)
        for path in (in_path, f"/users/islogged/{TOKEN}", f"/appowner/uuid/{UUID}"):
            assert (await old.get(path)).status_code == 500
    failed = {entry["path"] for entry in logged if entry["event"] == "request failed"}
    assert failed == {"/appowner/emailpassword/…", "/users/islogged/…", "/appowner/uuid/…"}
    records = " ".join(repr((record.key, record.value, record.headers)) for record in world.services.records)
    metrics = generate_latest(REGISTRY).decode()
    assert 'method="appowner/emailpassword",status="200",version="accounts"' in metrics
    for text in (repr(logged), records, metrics):
        for secret in (PASSWORD, quote(PASSWORD), quote(PASSWORD, safe=""), UUID, KEY, TOKEN):
            assert secret not in text


@pytest.mark.parametrize("route", WITH_BODY)
@pytest.mark.parametrize("wrong", [{"$gt": ""}, ["a"], 1, True, None])
async def test_every_field_is_a_text_and_is_named_when_it_is_not(
    world: World, route: tuple[str, str], wrong: Any
) -> None:
    optional = {"username", "email", "password"} if route[0] == "PUT" else set()
    for name in ORDERS[route][2].split():
        if wrong is None and name in optional:
            continue
        answer = await call(world, route, {**(usual(route) or {}), name: wrong})
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
        assert {error["path"] for error in answer.json()["meta"]["errors"]} == {name}
    assert world.services.received == []


@pytest.mark.parametrize("route", WITH_BODY)
async def test_a_missing_and_an_unknown_field_are_named(world: World, route: tuple[str, str]) -> None:
    body = usual(route) or {}
    missing = next(iter(body))
    answer = await call(world, route, {**{name: body[name] for name in body if name != missing}, "more": PASSWORD})
    assert answer.status_code == 422
    assert {error["path"] for error in answer.json()["meta"]["errors"]} == {missing, "more"}
    assert PASSWORD not in answer.text


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "body_missing"), (b"{", "malformed_body"), (b"[]", "malformed_body"), (b"'", "malformed_body")],
)
async def test_a_body_that_is_no_object_is_refused(world: World, body: bytes, code: str) -> None:
    answer = await world.http.post("/users/signup", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_names_have_a_length(world: World) -> None:
    for name in ("", "x" * 256):
        answer = await call(
            world, ("POST", "/users/signup"), {**(usual(("POST", "/users/signup")) or {}), "username": name}
        )
        assert [error["path"] for error in answer.json()["meta"]["errors"]] == ["username"]


@pytest.mark.parametrize("route", ROUTES)
async def test_another_verb_is_refused(world: World, route: tuple[str, str]) -> None:
    answer = await world.http.request("PATCH", route[1])
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_supported")
    assert route[0] in answer.headers["allow"]


@pytest.mark.parametrize(("kind", "status"), [("unauthenticated", 401), ("forbidden", 403)])
async def test_whoever_is_not_let_in_reads_so_beside_the_code(world: World, kind: str, status: int) -> None:
    for code, sentence in MESSAGES_BY_CODE.items():
        world.services.replies["auth.sign-in"] = lambda _, code=code: Refused(kind, code)
        answer = await call(world, ("POST", "/users/signin"), usual(("POST", "/users/signin")))
        assert answer.status_code == status
        request = answer.headers["x-request-id"]
        assert answer.json() == {"auth": False, "message": sentence, "code": code, "meta": {"request_id": request}}


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
async def test_other_errors_are_those_of_rpc(world: World, refused: Refused, status: int) -> None:
    world.services.replies["auth.sign-up"] = lambda _: refused
    answer = await call(world, ("POST", "/users/signup"), usual(("POST", "/users/signup")))
    assert answer.status_code == status
    assert answer.json().keys() <= {"code", "meta"}
    if status in (429, 503):
        assert answer.headers["retry-after"] == str(refused.body["meta"]["retry_after"])


async def test_orders_for_one_address_come_one_after_the_other_and_the_address_is_not_readable(world: World) -> None:
    for route in (("POST", "/appowner/create"), ("POST", "/appowner/login")):
        for email in (EMAIL, EMAIL.upper(), "other@example.com"):
            await call(world, route, {**(usual(route) or {}), "email": email})
    keys = [envelope.key for envelope in world.services.received]
    assert len(set(keys)) == 2
    assert keys.count(keys[0]) == 4
    assert EMAIL not in "".join(keys)
    world.services.reset()
    for key in (KEY, "another"):
        await call(world, ("POST", "/users/signwithemail"), {"apikey": key, "email": EMAIL, "password": PASSWORD})
    assert len({envelope.key for envelope in world.services.received}) == 2


async def test_an_idempotency_key_makes_a_repeat_known(world: World) -> None:
    route = ("POST", "/applications/create")
    for appname in ("An app", "An app", "Another"):
        await call(world, route, {"owneruuid": UUID, "appname": appname}, idempotency_key="k1")
    first, again, other = world.services.received
    assert first.id == again.id == other.id
    assert first.fingerprint == again.fingerprint != other.fingerprint
    await call(world, ("DELETE", "/applications/delete"), {"apikey": KEY}, idempotency_key="k1")
    assert world.services.received[-1].id != first.id


async def test_an_authorization_header_for_somebody_else_says_nothing_here(world: World) -> None:
    for header in ("bearer x", f"internal {INTERNAL_KEYS[0]}", "basic eDp5"):
        answer = await call(world, ("POST", "/users/userdata"), {"token": TOKEN}, authorization=header)
        assert answer.status_code == 200
    assert {envelope.caller.kind for envelope in world.services.received} == {"anonymous"}


async def test_without_old_clients_no_password_is_taken_from_a_url(world: World) -> None:
    answer = await world.http.get(f"/appowner/emailpassword/{EMAIL}/{quote(PASSWORD, safe='')}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert world.services.received == []


@pytest.mark.parametrize("password", [PASSWORD, "..", "a+b", "пароль", "{}", ""])
async def test_old_clients_log_in_by_url_with_any_password(world: World, old: httpx.AsyncClient, password: str) -> None:
    path = f"/appowner/emailpassword/{quote(EMAIL)}/{quote(password, safe='').replace('.', '%2E')}"
    assert (await old.get(path)).status_code == 200
    assert said(world) == {"email": EMAIL, "password": password}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/appowner/emailpassword/{EMAIL}/%ff", 422),
        (f"/appowner/emailpassword/{EMAIL}/a/b", 404),
        (f"/appowner/emailpassword/{EMAIL}", 404),
        (f"/appowner/emailpassword%2F{EMAIL}/a", 404),
        (f"/appowner%2Femailpassword/{EMAIL}/a", 404),
        (f"//appowner/emailpassword/{EMAIL}/a", 404),
        (f"/users/islogged/{TOKEN}/", 404),
        ("/users/islogged/", 200),
        ("/users/islogged/a%0Ab", 200),
    ],
)
async def test_a_path_is_read_in_one_way(world: World, old: httpx.AsyncClient, path: str, status: int) -> None:
    assert (await old.request("GET", f"http://127.0.0.1:{old.base_url.port}{path}")).status_code == status
    assert len(world.services.received) == (status == 200)


@pytest.mark.parametrize("path", ["/", "/accounts"])
async def test_the_page_shows_every_route_and_runs_nothing(world: World, old: httpx.AsyncClient, path: str) -> None:
    page = await world.http.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "<script" not in page.text
    assert " style=" not in page.text
    for each in ROUTE_TABLE:
        assert f"<code>{each.verb} {each.path}</code>" in page.text
    assert f"curl -s {ISSUER}/appowner/create" in page.text
    assert "emailpassword" not in page.text
    assert "<code>GET /appowner/emailpassword/{email}/{password}</code>" in (await old.get(path)).text


ENVIRONMENT = {
    "kafka_bootstrap": "127.0.0.1:9092",
    "sealing_keys": "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "issuer": "https://api.example.com",
    "stripe_webhook_secrets": "whsec_1",
    "stripe_livemode": True,
}


def test_old_clients_are_off_and_in_production_must_be_meant() -> None:
    assert not load(GatewaySettings, **ENVIRONMENT).old_clients
    assert load(GatewaySettings, **ENVIRONMENT, environment="dev", old_clients=True).old_clients
    with pytest.raises(SettingsError, match=r"NEST_OLD_CLIENTS: .*NEST_OLD_CLIENTS_IN_PRODUCTION"):
        load(GatewaySettings, **ENVIRONMENT, old_clients=True)
    assert load(GatewaySettings, **ENVIRONMENT, old_clients=True, old_clients_in_production=True).old_clients


def test_old_clients_are_said_aloud() -> None:
    with capture_logs() as logged:
        load(GatewaySettings, **ENVIRONMENT).warn_of_old_clients()
        assert logged == []
        load(GatewaySettings, **ENVIRONMENT, environment="dev", old_clients=True).warn_of_old_clients()
    [entry] = logged
    assert entry["log_level"] == "warning"
    assert "old clients" in entry["event"]
