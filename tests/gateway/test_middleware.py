"""What every answer carries, what browsers are told, and where a request comes from."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.gateway.client_ip import ClientIp
from services.gateway.cors import Cors
from services.gateway.middleware import HttpMiddleware
from tests.gateway.conftest import ORIGIN, World

PATH = "/1/2021-10-06/list_news_items"


@pytest.mark.parametrize("path", [PATH, "/nothing", "/healthz", "/1/webhook/stripe", "/2/x/y"])
async def test_every_answer_carries_the_same_headers(world: World, path: str) -> None:
    for verb in ("GET", "POST"):
        answer = await world.http.request(verb, path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["strict-transport-security"]
        assert len(answer.headers["x-request-id"]) == 32
        assert "server" not in answer.headers


ASKED = {"origin": ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-a"}


class TestBrowsers:
    async def test_of_an_allowed_page_may_call(self, world: World) -> None:
        allowed = await world.http.options(PATH, headers=ASKED)
        assert allowed.status_code == 204
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "idempotency-key" in allowed.headers["access-control-allow-headers"]
        assert "POST" in allowed.headers["access-control-allow-methods"]
        called = await world.http.post(PATH, json={"client_id": "c"}, headers={"origin": ORIGIN})
        assert called.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in called.headers["access-control-expose-headers"]
        assert called.headers["vary"] == "origin"
        refused = await world.http.post(PATH, json={}, headers={"origin": ORIGIN})
        assert refused.headers["access-control-allow-origin"] == ORIGIN

    @pytest.mark.parametrize(
        "origin",
        ["https://evil.example", "null", "http://app.example.com", ORIGIN + ".evil.example", ORIGIN + "/", "*"],
    )
    async def test_of_another_page_may_not(self, world: World, origin: str) -> None:
        asked = await world.http.options(PATH, headers={**ASKED, "origin": origin})
        assert (asked.status_code, asked.json()["code"]) == (403, "origin_not_allowed")
        called = await world.http.post(PATH, json={"client_id": "c"}, headers={"origin": origin})
        for answer in (asked, called):
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "origin"

    async def test_credentials_of_a_browser_are_never_asked_for(self, world: World) -> None:
        allowed = await world.http.options(PATH, headers=ASKED)
        assert "access-control-allow-credentials" not in allowed.headers


class TestWhateverTheAppDoes:
    @staticmethod
    def client(app: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(HttpMiddleware(app, Cors([])))
        return httpx.AsyncClient(transport=transport, base_url="http://nest.test")

    async def test_a_fault_of_ours_tells_nothing(self) -> None:
        async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
            raise ValueError("hunter2")

        async with self.client(app) as http:
            answer = await http.get("/")
        assert answer.status_code == 500
        assert answer.json() == {"code": "unknown", "meta": {"request_id": answer.headers["x-request-id"]}}

    async def test_a_header_of_its_own_goes_first(self) -> None:
        csp = {"content-security-policy": "default-src 'self'", "cache-control": "public, max-age=60"}
        page = Starlette(routes=[Route("/", lambda _: PlainTextResponse("page", headers=csp))])
        async with self.client(page) as http:
            answer = await http.get("/")
        assert answer.headers["content-security-policy"] == "default-src 'self'"
        assert answer.headers.get_list("cache-control") == ["public, max-age=60"]
        assert answer.headers["x-content-type-options"] == "nosniff"

    async def test_it_knows_the_request_id(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse(scope["state"]["request_id"])(scope, receive, send)

        async with self.client(app) as http:
            assert (await http.get("/", headers={"x-request-id": "mine"})).text == "mine"


class TestClientIp:
    @staticmethod
    def of(peer: str, *forwarded: str, trusted: tuple[str, ...] = ("10.0.0.0/8", "2001:db8::/32")) -> str | None:
        headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
        client_ip = ClientIp([ip_network(network) for network in trusted])
        return client_ip.of({"client": (peer, 1), "headers": headers})

    def test_is_the_sockets_unless_a_proxy_is_trusted(self) -> None:
        assert self.of("192.0.2.1", "198.51.100.1") == "192.0.2.1"
        assert self.of("10.0.0.1", "198.51.100.1", trusted=()) == "10.0.0.1"

    def test_is_the_right_most_that_no_proxy_of_ours_has(self) -> None:
        assert self.of("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.9.9.9") == "198.51.100.1"
        assert self.of("10.0.0.1", "203.0.113.9", "198.51.100.1") == "198.51.100.1"
        assert self.of("2001:db8::1", "2001:4860::8") == "2001:4860::8"
        assert self.of("::ffff:10.0.0.1", "198.51.100.1") == "198.51.100.1"

    @pytest.mark.parametrize("forwarded", ["", " ", "unknown", "evil\x00", "198.51.100.1:80", "é", ",,,"])
    def test_is_the_proxys_when_it_names_nobody(self, forwarded: str) -> None:
        assert self.of("10.0.0.1", forwarded) == "10.0.0.1"

    def test_is_the_farthest_when_all_are_proxies(self) -> None:
        assert self.of("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"

    def test_may_be_unknown(self) -> None:
        assert ClientIp().of({"client": None, "headers": []}) is None
