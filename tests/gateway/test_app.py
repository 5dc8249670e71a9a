from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway import accounts, phone
from services.gateway.app import create
from services.gateway.methods import PATHS
from services.gateway.settings import GatewaySettings
from shared.clock_check import ClockCheck, ClockGate
from tests.gateway.conftest import GatewayStack
from tests.stack import eventually


async def test_health_check_reports_problems(stack: GatewayStack, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = await stack.http.get("/healthz")
    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})
    monkeypatch.setattr(stack.gateway._rpc_client._reader, "following", False)
    failing = await stack.http.get("/healthz")
    assert (failing.status_code, failing.json()["reasons"]) == (503, ["replies are not received"])


async def test_metrics_are_served_on_the_health_port_only(
    stack: GatewayStack, make_settings: Callable[..., GatewaySettings]
) -> None:
    assert (await stack.http.get("/metrics")).status_code == 404
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = make_settings(topic_prefix=stack.settings.topic_prefix, health_port=port)
    async with create(settings) as gateway, httpx.AsyncClient() as http:
        await http.post(f"http://127.0.0.1:{gateway.port}/1/2021-10-06/list_news_items", json={"client_id": "c"})
        metrics = await http.get(f"http://127.0.0.1:{port}/metrics")
    assert 'nest_gateway_call_seconds_count{method="list_news_items",status="204",version="2021-10-06"}' in metrics.text


async def test_middleware_may_add_routes(stack: GatewayStack, make_settings: Callable[..., GatewaySettings]) -> None:
    def middleware(gateway: ASGIApp) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await (PlainTextResponse("page") if scope["path"] == "/" else gateway)(scope, receive, send)

        return app

    settings = make_settings(topic_prefix=stack.settings.topic_prefix)
    async with create(settings, middleware=middleware) as gateway, httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{gateway.port}/")).text == "page"
        assert (await http.get(f"http://127.0.0.1:{gateway.port}/healthz")).status_code == 200


async def test_start_on_a_used_port_fails_and_leaves_no_task(
    stack: GatewayStack, make_settings: Callable[..., GatewaySettings]
) -> None:
    before = len(asyncio.all_tasks())
    with pytest.raises(OSError, match="in use"):
        async with create(make_settings(topic_prefix=stack.settings.topic_prefix, port=stack.gateway.port)):
            pass
    await eventually(lambda: len(asyncio.all_tasks()) <= before)


@pytest.mark.parametrize("off", ["accounts_api", "phone_api"])
async def test_api_that_is_switched_off_answers_404(
    stack: GatewayStack, make_settings: Callable[..., GatewaySettings], off: str
) -> None:
    settings = make_settings(
        topic_prefix=stack.settings.topic_prefix, old_clients=True, test_login=True, **{off: False}
    )
    routes = {
        "accounts_api": [
            *((route.verb, route.path) for route in (*accounts.ROUTES, *accounts.OLD_CLIENT_ROUTES)),
            *(("GET", path) for path in accounts.PAGE_PATHS),
        ],
        "phone_api": [(route.verb, route.path) for route in (*phone.ROUTES, phone.TEST_LOGIN)],
    }
    async with create(settings) as gateway, httpx.AsyncClient() as http:
        for api, paths in routes.items():
            for verb, path in paths:
                filled = path.replace("{", "").replace("}", "")
                response = await http.request(verb, f"http://127.0.0.1:{gateway.port}{filled}", content=b"[]")
                assert (response.status_code == 404) is (api == off), (verb, path, response.text)
                if api == off:
                    assert response.json()["code"] == "not_found"


ROUTES = [
    *(("POST", path) for path in PATHS),
    *((route.verb, route.path) for route in (*accounts.ROUTES, *phone.ROUTES)),
    *(("POST", f"/1/webhook/{provider}") for provider in ("stripe", "mail", "unknown")),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/openid-configuration"),
    ("GET", "/accounts"),
    ("GET", "/healthz"),
    ("GET", "/openapi.json"),
    ("GET", "/reference"),
    ("GET", "/open/token"),
    ("GET", "/unsubscribe/token"),
    ("POST", "/unsubscribe/token"),
]
"""Every route, with method."""


@pytest.mark.parametrize(("verb", "path"), ROUTES)
async def test_one_trailing_slash_is_ignored(stack: GatewayStack, verb: str, path: str) -> None:
    path = path.replace("{", "").replace("}", "")
    plain, slashed, twice = [
        await stack.http.request(verb, path + slashes, content=b"{}" if verb == "POST" else None)
        for slashes in ("", "/", "//")
    ]
    assert slashed.status_code == plain.status_code
    assert slashed.content.replace(slashed.headers["x-request-id"].encode(), b"") == plain.content.replace(
        plain.headers["x-request-id"].encode(), b""
    )
    assert twice.status_code == 404
    messages = [(envelope.wire, len(envelope.body)) for envelope in stack.services.received]
    assert messages[: len(messages) // 2] == messages[len(messages) // 2 :]


async def test_encoded_slash_at_the_end_is_not_ignored(stack: GatewayStack) -> None:
    for path in ("/healthz%2F", "/1/2021-10-06/list_news_items%2f", "/accounts/%2F"):
        assert (await stack.http.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/", "/nothing", *(path for verb, path in ROUTES if verb == "GET")])
async def test_head_gives_the_headers_of_get(stack: GatewayStack, path: str) -> None:
    get, head = await stack.http.get(path), await stack.http.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert {**head.headers, "date": "", "x-request-id": ""} == {**get.headers, "date": "", "x-request-id": ""}


@pytest.mark.parametrize("ahead", [600.0, -600.0])
async def test_gateway_with_a_wrong_clock_refuses_requests(
    stack: GatewayStack,
    make_settings: Callable[..., GatewaySettings],
    monkeypatch: pytest.MonkeyPatch,
    *,
    ahead: float,
) -> None:
    skew = [ahead]
    # Only of the gateway that is created here: the others of this process keep their clocks.
    clock = partial(ClockCheck, clock=lambda: time.time() + skew[0])
    monkeypatch.setattr("services.gateway.app.ClockCheck", clock)
    monkeypatch.setattr("services.gateway.app.ClockGate", partial(ClockGate, seconds=0.1))
    path, body = "/1/2021-10-06/list_news_items", {"client_id": "c"}
    async with (
        create(make_settings(topic_prefix=stack.settings.topic_prefix)) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as http,
    ):
        for refused in (await http.post(path, json=body), await http.get("/.well-known/jwks.json")):
            assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
            assert refused.headers["retry-after"] == "30"
        health = await http.get("/healthz")
        assert health.status_code == 503
        assert health.json()["reasons"][0].startswith("the clock is 600 s ")
        assert stack.gateway.problems() == []
        skew[0] = 0.0
        await eventually(lambda: gateway.problems() == stack.gateway.problems() == [])
        assert (await http.post(path, json=body)).status_code == 204
