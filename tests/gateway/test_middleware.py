from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.gateway import middleware
from services.gateway.error_messages import MESSAGES
from services.gateway.http_calls import HttpCalls
from services.gateway.middleware import HttpMiddleware, loggable_path
from shared.otel_settings import TraceExport
from shared.tracing import Tracing
from tests.gateway.conftest import ORIGIN, GatewayStack

CALLS = HttpCalls(Tracing("gateway", TraceExport()), issuer="http://nest.test", trusted_proxies=())


@pytest.mark.parametrize(
    "path", ["/1/2021-10-06/list_news_items", "/nothing", "/healthz", "/1/webhook/stripe", "/2/x/y"]
)
async def test_every_response_has_the_security_headers(stack: GatewayStack, path: str) -> None:
    for verb in ("GET", "POST"):
        response = await stack.http.request(verb, path)
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        policy = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
        assert response.headers["content-security-policy"] == policy
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["strict-transport-security"]
        assert len(response.headers["x-request-id"]) == 32
        assert "server" not in response.headers


def client_of(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(HttpMiddleware(app, (), CALLS))
    return httpx.AsyncClient(transport=transport, base_url="http://nest.test")


async def test_unexpected_error_reveals_nothing() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("hunter2")

    async with client_of(app) as http:
        response = await http.get("/")
    assert response.status_code == 500
    assert response.json() == {
        "code": "unknown",
        "message": MESSAGES["unknown"],
        "docs": "/reference#error-unknown",
        "meta": {"request_id": response.headers["x-request-id"]},
    }


async def test_headers_of_the_app_take_precedence() -> None:
    headers = {"content-security-policy": "default-src 'self'", "cache-control": "public, max-age=60"}
    page = Starlette(routes=[Route("/", lambda _: PlainTextResponse("page", headers=headers))])
    async with client_of(page) as http:
        response = await http.get("/")
    assert response.headers["content-security-policy"] == "default-src 'self'"
    assert response.headers.get_list("cache-control") == ["public, max-age=60"]
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_app_sees_the_request_id() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["state"]["request_id"])(scope, receive, send)

    async with client_of(app) as http:
        assert (await http.get("/", headers={"x-request-id": "mine"})).text == "mine"


@pytest.mark.parametrize(
    ("path", "loggable"),
    [
        ("/1/2021-10-06/get_user", "/1/2021-10-06/get_user"),
        ("/1/2021-10-06/get_user/secret", "/1/2021-10-06/get_user/…"),
        ("/users/islogged/secret", "/users/islogged/…"),
        ("/register/secret/secret", "/register/…"),
        ("/unsubscribe/secret", "/unsubscribe/…"),
        ("/open/secret", "/open/…"),
        ("/appowner/emailpassword/secret/secret", "/appowner/emailpassword/…"),
        ("/.well-known/jwks.json", "/.well-known/jwks.json"),
        ("/healthz", "/healthz"),
        ("/", "/"),
    ],
)
def test_logged_path_has_no_values(path: str, loggable: str) -> None:
    assert loggable_path(path) == loggable


PATH = "/1/2021-10-06/list_news_items"


PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-a"}


async def test_allowed_origin_may_call(stack: GatewayStack) -> None:
    preflight = await stack.http.options(PATH, headers=PREFLIGHT)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert preflight.headers["access-control-allow-headers"] == "x-a"
    assert preflight.headers["vary"] == "origin, access-control-request-headers"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    response = await stack.http.post(PATH, json={"client_id": "c"}, headers={"origin": ORIGIN})
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "x-request-id" in response.headers["access-control-expose-headers"]
    assert response.headers["vary"] == "origin"
    refused = await stack.http.post(PATH, json={}, headers={"origin": ORIGIN})
    assert refused.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://app.example.com", ORIGIN + ".evil.example", ORIGIN + "/", "*"],
)
async def test_other_origin_is_refused(stack: GatewayStack, origin: str) -> None:
    preflight = await stack.http.options(PATH, headers={**PREFLIGHT, "origin": origin})
    assert (preflight.status_code, preflight.json()["code"]) == (403, "origin_not_allowed")
    response = await stack.http.post(PATH, json={"client_id": "c"}, headers={"origin": origin})
    for each in (preflight, response):
        assert "access-control-allow-origin" not in each.headers
        assert each.headers["vary"] == "origin"


@pytest.mark.parametrize(
    ("requested", "allowed"),
    [
        ("content-type", "content-type"),
        ("authorization,content-type,sentry-trace,baggage", "authorization,content-type,sentry-trace,baggage"),
        ("X-Requested-With, x-datadog-trace-id", "X-Requested-With, x-datadog-trace-id"),
        (None, middleware._REQUEST_HEADERS.decode()),
        ("", middleware._REQUEST_HEADERS.decode()),
        ("x-a, x b", middleware._REQUEST_HEADERS.decode()),
        ('x-a"', middleware._REQUEST_HEADERS.decode()),
        ("é".encode("latin-1"), middleware._REQUEST_HEADERS.decode()),
    ],
)
async def test_allowed_origin_may_send_the_headers_it_names(
    stack: GatewayStack, requested: str | bytes | None, allowed: str
) -> None:
    """Fetch standard, CORS-preflight fetch: ``Access-Control-Allow-Headers`` lists the headers of the request."""
    headers: dict[str, Any] = {**PREFLIGHT, "access-control-request-headers": requested}
    if requested is None:
        del headers["access-control-request-headers"]
    preflight = await stack.http.options(PATH, headers=headers)
    assert (preflight.status_code, preflight.headers["access-control-allow-headers"]) == (204, allowed)


@pytest.mark.parametrize("origin", ["capacitor://localhost", "tauri://localhost", "file://", "http://[::1]:3000"])
async def test_origin_of_any_scheme_may_be_named(origin: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("page")(scope, receive, send)

    transport = httpx.ASGITransport(HttpMiddleware(app, (origin,), CALLS))
    async with httpx.AsyncClient(transport=transport, base_url="http://nest.test") as http:
        for response in (
            await http.options("/", headers={**PREFLIGHT, "origin": origin}),
            await http.get("/", headers={"origin": origin}),
        ):
            assert response.headers["access-control-allow-origin"] == origin


async def test_browser_credentials_are_not_allowed(stack: GatewayStack) -> None:
    preflight = await stack.http.options(PATH, headers=PREFLIGHT)
    assert "access-control-allow-credentials" not in preflight.headers


async def test_invalid_request_id_is_replaced(stack: GatewayStack) -> None:
    valid = await stack.http.post("/1/2021-10-06/get_user", headers={"x-request-id": "abc-DEF_1.2:3"})
    assert valid.headers["x-request-id"] == valid.json()["meta"]["request_id"] == "abc-DEF_1.2:3"
    for invalid in ("", "a" * 129, "a b", "é".encode("latin-1"), '"><script>'):
        replaced = await stack.http.post("/1/2021-10-06/get_user", headers={"x-request-id": invalid})
        assert len(replaced.headers["x-request-id"]) == 32
        assert replaced.headers["x-request-id"] == replaced.json()["meta"]["request_id"]
