"""Requests over raw sockets: smuggling, timeouts and size limits."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from services.gateway import server
from services.gateway.app import Gateway, create
from services.gateway.connections import BodyBudget, ConnectionLimits
from services.gateway.requests import client_ip
from services.gateway.responses import HttpResponse, send_response
from services.gateway.settings import GatewaySettings
from shared.bus.envelope import Envelope
from tests.gateway.conftest import INTERNAL_KEYS, GatewayStack
from tests.stack import eventually

BODY = b'{"client_id": "c"}'
HEAD = b"POST /1/2021-10-06/list_news_items HTTP/1.1\r\nHost: nest.test\r\n"
GOOD = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


async def talk(port: int, *parts: bytes, wait: float = 5.0, until_closed: bool = True) -> tuple[list[int], bytes]:
    """Send bytes, and return the status codes and all bytes received until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        async with asyncio.timeout(wait):
            for part in parts:
                writer.write(part)
                await writer.drain()
            while chunk := await reader.read(65536):
                received += chunk
    except TimeoutError:
        assert not until_closed, f"still open after {wait} s: {received!r}"
    except ConnectionError:
        pass
    finally:
        writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)], received


class RecordedTransport(asyncio.Transport):
    """A transport that records what it is asked to send."""

    def __init__(self) -> None:
        super().__init__()
        self.segments: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.segments.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def test_head_and_body_of_a_response_are_sent_together() -> None:
    head, recorded = b"HTTP/1.1 200 OK\r\n\r\n", RecordedTransport()
    transport = server._JoinedWrites(recorded, asyncio.get_running_loop())
    for body in (b"first", b"", b"HTTP/1.1"):
        transport.write(head)
        transport.write(body)
    transport.write(b"more of the last body")
    assert recorded.segments == [head + b"first", head, head + b"HTTP/1.1", b"more of the last body"]

    recorded.segments.clear()
    transport.write(head)
    await asyncio.sleep(0)
    transport.write(b"body of a stream")
    transport.write(head)
    transport.close()
    await asyncio.sleep(0)
    assert (recorded.segments, transport.is_closing()) == ([head, b"body of a stream", head], True)


async def test_head_that_a_closed_connection_was_to_send_is_dropped() -> None:
    recorded = RecordedTransport()
    server._JoinedWrites(recorded, asyncio.get_running_loop()).write(b"HTTP/1.1 200 OK\r\n\r\n")
    recorded.closed = True
    await asyncio.sleep(0)
    assert recorded.segments == []


@pytest.mark.parametrize(
    "request_",
    {
        "CL and TE": HEAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        "TE and CL, then another": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + CHUNKED + GOOD,
        "different CL": HEAD + b"Content-Length: 2\r\nContent-Length: 18\r\n\r\n" + BODY,
        "duplicate CL": HEAD + b"Content-Length: 18\r\nContent-Length: 18\r\n\r\n" + BODY,
        "list of CL": HEAD + b"Content-Length: 18, 18\r\n\r\n" + BODY,
        "CL with a sign": HEAD + b"Content-Length: +18\r\n\r\n" + BODY,
        "negative CL": HEAD + b"Content-Length: -18\r\n\r\n" + BODY,
        "endless CL": HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + BODY,
        "unknown TE": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
        "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKED,
        "TE with gzip": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKED,
        "two TE": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
        "TE behind a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKED,
        "bare LF": GOOD.replace(b"\r\n", b"\n"),
        "one bare LF": GOOD.replace(b"nest.test\r\n", b"nest.test\n"),
        "bare CR": HEAD + b"X: a\rY: b\r\nContent-Length: 18\r\n\r\n" + BODY,
        "space before colon": HEAD + b"Content-Length : 18\r\n\r\n" + BODY,
        "space before the colon of Host": GOOD.replace(b"Host:", b"Host :"),
        "two Host": HEAD + b"Host: other.test\r\nContent-Length: 18\r\n\r\n" + BODY,
        "no Host": GOOD.replace(b"Host: nest.test\r\n", b""),
        "malformed Host": GOOD.replace(b"nest.test", b"nest.test/path, other.test"),
        "two Authorization": HEAD + b"Authorization: a\r\nAuthorization: b\r\nContent-Length: 18\r\n\r\n" + BODY,
        "empty header name": HEAD + b": x\r\nContent-Length: 18\r\n\r\n" + BODY,
        "NUL in a header": HEAD + b"X: a\x00b\r\nContent-Length: 18\r\n\r\n" + BODY,
        "NUL in the path": GOOD.replace(b"list_", b"list\x00"),
        "folded header": HEAD + b"X: a\r\n b\r\nContent-Length: 18\r\n\r\n" + BODY,
        "HTTP/1.0 without Host": GOOD.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: nest.test\r\n", b""),
        "HTTP/0.9": b"GET /\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "chunk longer than its size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n0\r\n\r\n",
        "chunk size with 0x": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x12\r\n" + BODY + b"\r\n0\r\n\r\n",
        "WebSocket": HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 18\r\n\r\n" + BODY,
        "WebSocket without Connection": HEAD + b"Upgrade: WebSocket\r\nContent-Length: 18\r\n\r\n" + BODY,
        "WebSocket in a list": HEAD + b"Connection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        "WebSocket before h2c": HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
        "CONNECT": b"CONNECT nest.test:80 HTTP/1.1\r\nHost: nest.test\r\n\r\n",
        "CONNECT to a path": b"CONNECT /healthz HTTP/1.1\r\nHost: nest.test\r\nContent-Length: 99\r\n\r\n" + GOOD,
        "HTTP/1.1 health check without Host": b"GET /healthz HTTP/1.1\r\n\r\n",
        "HTTP/1.0 health check with a malformed Host": b"GET /healthz HTTP/1.0\r\nHost: a/b\r\n\r\n",
        "not ASCII": GOOD.replace(b"list_", "lïst_".encode()),
    }.items(),
    ids=lambda case: case[0],
)
async def test_ambiguous_requests_are_refused(stack: GatewayStack, request_: tuple[str, bytes]) -> None:
    statuses, received = await talk(stack.gateway.port, request_[1])
    assert statuses == [400], received
    assert b'"code": "malformed_request"' in received
    assert stack.services.received == []


async def test_valid_requests_are_handled(stack: GatewayStack) -> None:
    close = b"Connection: close\r\n"
    for request in (
        GOOD.replace(b"Host:", close + b"Host:"),
        HEAD + close + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
        HEAD + close + b"Transfer-Encoding: Chunked\r\n\r\n" + CHUNKED,
    ):
        statuses, received = await talk(stack.gateway.port, request)
        assert statuses == [204], received
    assert len(stack.services.received) == 3


H2C = (
    b"Connection: Upgrade, HTTP2-Settings\r\n%sHost: nest.test\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA\r\n%sUpgrade: h2c\r\n"
    b"User-Agent: Java-http-client/17.0.15\r\n\r\n"
)
"""Headers of java.net.http.HttpClient, which asks for HTTP/2 by default (RFC 7540 section 3.2)."""


def java(verb: str, path: str, body: bytes = b"", *, chunked: bool = False) -> bytes:
    """A request as java.net.http.HttpClient sends it."""
    line = f"{verb} {path} HTTP/1.1\r\n".encode()
    if chunked:
        return line + H2C % (b"", b"Transfer-encoding: chunked\r\n") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return line + H2C % (b"Content-Length: %d\r\n" % len(body), b"") + body


RPC = "/1/2021-10-06/list_news_items"


@pytest.mark.parametrize(
    ("request_", "status", "messages"),
    [
        (java("POST", RPC, BODY), 204, 1),
        (java("POST", RPC, BODY, chunked=True), 204, 1),
        (java("POST", RPC), 400, 0),
        (java("GET", "/healthz"), 200, 0),
        (java("HEAD", "/healthz"), 200, 0),
        (java("GET", "/"), 200, 0),
        (java("GET", "/.well-known/jwks.json"), 200, 0),
        (java("POST", "/init", b'{"phone_number": "+41791234567"}'), 204, 1),
        (java("GET", "/users/islogged/token"), 204, 1),
        (java("DELETE", "/appowner/delete", b'{"deletion_token": "t", "uuid": "u"}'), 204, 1),
        (java("POST", "/1/webhook/stripe", b"{}"), 400, 0),
        (java("POST", "/nothing", b"{}"), 404, 0),
        (GOOD.replace(b"Host:", b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\nHost:"), 204, 1),
        (GOOD.replace(b"Host:", b"Connection: Upgrade\r\nUpgrade: \r\nHost:"), 204, 1),
        (GOOD.replace(b"Host:", b"Upgrade: h2c\r\nHost:"), 204, 1),
    ],
)
async def test_upgrade_is_ignored_on_every_route(
    stack: GatewayStack, request_: bytes, status: int, messages: int
) -> None:
    """RFC 9110 section 7.8. The connection stays open for the next request."""
    close = GOOD.replace(b"Host:", b"Connection: close\r\nHost:")
    for cut in (0, 20, request_.index(b"Upgrade") + 9, len(request_) - 1, len(request_)):
        stack.services.received.clear()
        statuses, received = await talk(stack.gateway.port, request_[:cut], request_[cut:] + close)
        assert statuses == [status, 204], received
        assert b"upgrade" not in received.lower()
        assert len(stack.services.received) == messages + 1


@pytest.mark.parametrize("path", ["/healthz", "/healthz/"])
@pytest.mark.parametrize("verb", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", ["", "Host:\r\n", "Host: 10.0.0.1\r\n", "User-Agent: HAProxy\r\n"])
async def test_health_check_over_http_1_0_needs_no_host(
    stack: GatewayStack, verb: str, path: str, headers: str
) -> None:
    """RFC 1945 has no Host header; HAProxy and others check health so."""
    statuses, received = await talk(stack.gateway.port, f"{verb} {path} HTTP/1.0\r\n{headers}\r\n".encode())
    assert statuses == [200]
    assert received.partition(b"\r\n\r\n")[2] == (b'{"status":"ok"}' if verb == "GET" else b"")


async def test_asterisk_form_is_not_found(stack: GatewayStack) -> None:
    request = b"OPTIONS * HTTP/1.1\r\nHost: nest.test\r\nConnection: close\r\n\r\n"
    assert (await talk(stack.gateway.port, request))[0] == [404]


async def test_trailers_are_ignored(stack: GatewayStack) -> None:
    trailers = b"0\r\nAuthorization: internal %s\r\nHost: other.test\r\n\r\n" % INTERNAL_KEYS[0].encode()
    request = HEAD.replace(b"list_news_items", b"create_client") + b"Transfer-Encoding: chunked\r\n\r\n" + trailers
    statuses, received = await talk(stack.gateway.port, request, wait=1, until_closed=False)
    assert statuses == [403], received


async def test_pipelined_requests_are_each_handled_once(stack: GatewayStack) -> None:
    statuses, _ = await talk(stack.gateway.port, GOOD * 5, wait=1, until_closed=False)
    assert statuses == [204] * 5
    assert len(stack.services.received) == 5


async def test_garbage_after_a_request_does_not_replace_its_response(stack: GatewayStack) -> None:
    statuses, _ = await talk(stack.gateway.port, GOOD + b"garbage\r\n\r\n")
    assert statuses == [204]
    assert len(stack.services.received) == 1


async def test_garbage_after_a_response_is_refused(stack: GatewayStack) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
    writer.write(GOOD)
    assert b"204" in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"garbage\r\n\r\n")
    assert b"400" in await reader.read()
    writer.close()


async def test_incomplete_request_is_not_handled(stack: GatewayStack) -> None:
    for cut in (GOOD[:-1], HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED[:-5]):
        _, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
        writer.write(cut)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert (await stack.http.get("/healthz")).status_code == 200
    assert stack.services.received == []


class TestSize:
    @pytest.mark.parametrize(
        "head",
        [
            HEAD + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
            HEAD + b"".join(b"X-%d: aaaaaaaaaaaaaaaa\r\n" % number for number in range(1000)) + b"\r\n",
            b"POST /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: nest.test\r\n\r\n",
        ],
        ids=["one header", "many", "path"],
    )
    async def test_head_over_16_kib_is_refused(self, stack: GatewayStack, head: bytes) -> None:
        statuses, received = await talk(stack.gateway.port, head)
        assert statuses == [431], received[:200]

    async def test_endless_head_is_cut_off(self, stack: GatewayStack) -> None:
        statuses, _ = await talk(stack.gateway.port, HEAD + b"X: ", *([b"a" * 8192] * 200), wait=5)
        assert statuses in ([431], [])  # A reset connection may lose the response.

    async def test_large_head_within_the_limit_is_accepted(self, stack: GatewayStack) -> None:
        request = HEAD + b"X: " + b"a" * 15_000 + b"\r\nConnection: close\r\nContent-Length: 18\r\n\r\n" + BODY
        assert (await talk(stack.gateway.port, request))[0] == [204]

    @pytest.mark.parametrize("size", [64 * 1024 + 1, 600_000])
    async def test_client_of_a_body_over_the_limit_reads_413(self, stack: GatewayStack, size: int) -> None:
        with_length = HEAD + b"Content-Length: %d\r\n\r\n" % size + b"a" * size
        chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + b"a" * size + b"\r\n0\r\n\r\n"
        for request in (with_length, chunked):
            statuses, received = await talk(stack.gateway.port, request)
            assert statuses == [413], received[:300]
            assert b'"code": "body_too_large"' in received
        assert stack.services.received == []

    async def test_body_of_100_mb_is_refused_without_reading_it(self, stack: GatewayStack) -> None:
        began = time.monotonic()
        request = HEAD + b"Content-Length: 100000000\r\n\r\n"
        statuses, _ = await talk(stack.gateway.port, request, b"a" * 3_000_000)
        assert statuses in ([413], [])
        assert time.monotonic() - began < 20

    async def test_body_of_exactly_the_limit_is_accepted(self, stack: GatewayStack) -> None:
        body = BODY + b" " * (64 * 1024 - len(BODY))
        request = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        assert (await talk(stack.gateway.port, request))[0] == [204]


@pytest.mark.usefixtures("short_timeout")
class TestTimeout:
    @pytest.fixture
    def short_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "ARRIVAL_SECONDS", 0.4)

    @pytest.mark.parametrize("sent", [HEAD[:5], HEAD[:20], HEAD, GOOD[:-3]], ids=["verb", "line", "head", "body"])
    async def test_incomplete_request_times_out_with_408(self, stack: GatewayStack, sent: bytes) -> None:
        statuses, _ = await talk(stack.gateway.port, sent)
        assert statuses == [408]
        assert stack.services.received == []

    async def test_silent_connection_is_closed_without_a_response(self, stack: GatewayStack) -> None:
        assert await talk(stack.gateway.port) == ([], b"")

    @pytest.mark.parametrize("second", [HEAD, GOOD[:-3]], ids=["head", "body"])
    async def test_pipelined_refusal_does_not_replace_the_earlier_response(
        self, stack: GatewayStack, second: bytes
    ) -> None:
        async def delay(_: object) -> None:
            await asyncio.sleep(0.8)

        stack.services.before_reply = delay
        statuses, received = await talk(stack.gateway.port, GOOD + second)
        assert 408 not in statuses, received
        await eventually(lambda: stack.gateway._rpc_client.waiting == 0)

    async def test_request_sent_byte_by_byte_times_out(self, stack: GatewayStack) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
        began = time.monotonic()

        async def send_slowly() -> None:
            for byte in HEAD * 10:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)

        sending = asyncio.create_task(send_slowly())
        response = await reader.read()
        assert time.monotonic() - began < 10
        assert b" 408 " in response
        sending.cancel()
        writer.close()

    async def test_slow_response_does_not_time_out(self, stack: GatewayStack) -> None:
        async def delay(_: object) -> None:
            await asyncio.sleep(0.8)

        stack.services.before_reply = delay
        request = GOOD.replace(b"Host:", b"Connection: close\r\nHost:")
        assert (await talk(stack.gateway.port, request))[0] == [204]


async def test_server_on_all_addresses_sees_ipv4_clients_as_ipv4() -> None:
    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        await send_response(send, HttpResponse(200, str(client_ip(scope, ())).encode()))

    dual_stack = server.Server(
        app, host="::", port=0, connections=ConnectionLimits(9, 9, ()), bodies=BodyBudget(10**6), drain_seconds=1
    )
    await dual_stack.start()
    try:
        statuses, received = await talk(dual_stack.port, GOOD.replace(b"Host:", b"Connection: close\r\nHost:"))
    finally:
        await dual_stack.stop()
    assert statuses == [200]
    assert received.endswith(b"\r\n\r\n127.0.0.1")


CLOSING = GOOD.replace(b"Host:", b"Connection: close\r\nHost:")


@pytest.mark.parametrize("limits", [{"connections": 3}, {"connections_per_peer": 3}], ids=str)
async def test_connection_over_a_limit_takes_the_place_of_the_idlest(
    make_settings: Callable[..., GatewaySettings], stack: GatewayStack, limits: dict[str, int]
) -> None:
    async with create(make_settings(topic_prefix=stack.settings.topic_prefix, **limits)) as gateway:
        opened = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(3)]
        # The oldest one is the only one that was used.
        opened[0][1].write(GOOD)
        assert (await opened[0][0].readuntil(b"\r\n")).startswith(b"HTTP/1.1 204")
        assert (await talk(gateway.port, CLOSING))[0] == [204]
        assert await opened[1][0].read() == b""
        for reader, writer in (opened[0], opened[2]):
            writer.write(CLOSING)
            assert b"HTTP/1.1 204" in await reader.read()
        for _, writer in opened:
            writer.close()


@pytest.mark.parametrize("limits", [{"connections": 2}, {"connections_per_peer": 2}], ids=str)
async def test_connection_gets_429_if_all_others_have_requests_in_progress(
    make_settings: Callable[..., GatewaySettings], stack: GatewayStack, limits: dict[str, int]
) -> None:
    released = asyncio.Event()

    async def wait(_envelope: Envelope) -> None:
        await released.wait()

    stack.services.before_reply = wait
    async with create(make_settings(topic_prefix=stack.settings.topic_prefix, **limits)) as gateway:
        # Equal requests would share a message.
        requests = [CLOSING.replace(b'"c"', b'"%d"' % number) for number in range(2)]
        working = [asyncio.create_task(talk(gateway.port, each, wait=30)) for each in requests]
        await eventually(lambda: len(stack.services.received) == 2)
        statuses, received = await talk(gateway.port, GOOD)
        assert statuses == [429], received
        assert b"retry-after: 5" in received
        released.set()
        assert [(await each)[0] for each in working] == [[204], [204]]
        assert (await talk(gateway.port, CLOSING))[0] == [204]


async def test_connections_of_a_trusted_proxy_have_no_limit_of_their_own(
    make_settings: Callable[..., GatewaySettings], stack: GatewayStack
) -> None:
    limits = {"connections": 4, "connections_per_peer": 1, "trusted_proxies": "127.0.0.1/32"}
    async with create(make_settings(topic_prefix=stack.settings.topic_prefix, **limits)) as gateway:
        opened = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(4)]
        statuses, received = await talk(gateway.port, GOOD)
        assert statuses == [429], received
        for reader, writer in opened:
            writer.write(CLOSING)
            assert b"HTTP/1.1 204" in await reader.read()
            writer.close()


def bodies_of(gateway: Gateway) -> BodyBudget:
    connection: Any = gateway._server._server.config.http_protocol_class
    budget: BodyBudget = connection.bodies
    return budget


async def test_unfinished_body_over_the_budget_takes_the_place_of_the_oldest_large_one(
    make_settings: Callable[..., GatewaySettings], stack: GatewayStack
) -> None:
    head, part, fitting = b"POST /init HTTP/1.1\r\nHost: nest.test\r\nContent-Length: 60001\r\n\r\n", 60_000, 16
    async with create(make_settings(topic_prefix=stack.settings.topic_prefix, body_megabytes=1)) as gateway:
        budget = bodies_of(gateway)
        small_reader, small = await asyncio.open_connection("127.0.0.1", gateway.port)
        small.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:5])
        opened = []
        for number in range(1, 3 * fitting):
            opened.append(await asyncio.open_connection("127.0.0.1", gateway.port))
            opened[-1][1].write(head + b"x" * part)
            if number <= fitting:
                expected = 5 + number * part
                await eventually(lambda expected=expected: budget.used == expected, what=f"{number} bodies")
            else:
                response = await asyncio.wait_for(opened[number - fitting - 1][0].read(), 10)
                assert b"429 Too Many Requests" in response
                assert b"retry-after: 1" in response
                assert budget.used <= 1_000_000
        # A small body is finished in the meantime.
        small.write(BODY[5:])
        assert (await small_reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 204")
        for writer in (small, *(writer for _, writer in opened)):
            writer.close()
        await eventually(lambda: budget.used == 0)


async def test_body_is_released_with_the_response_or_the_connection(
    make_settings: Callable[..., GatewaySettings], stack: GatewayStack
) -> None:
    async with create(make_settings(topic_prefix=stack.settings.topic_prefix)) as gateway:
        budget = bodies_of(gateway)
        for request, statuses in (
            (CLOSING, [204]),
            (GOOD + CLOSING, [204, 204]),
            (HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000, [413]),
            (GOOD.replace(b"Host:", b"Authorization: bearer x\r\nHost:") + CLOSING, [401, 204]),
            (b"POST /1/webhook/stripe HTTP/1.1\r\nHost: nest.test\r\nContent-Length: 9\r\n\r\n123", [400]),
        ):
            assert (await talk(gateway.port, request, wait=2, until_closed=False))[0] == statuses
            await eventually(lambda: budget.used == 0, what=str(request[:60]))
        # The client leaves in the middle of a body, and with a request in the pipeline.
        for request in (GOOD[:-3], GOOD + GOOD[:-3], GOOD + GOOD + GOOD):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(request)
            await writer.drain()
            writer.close()
            await eventually(lambda: budget.used == 0, what=str(request[-20:]))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=300), place=st.integers(0, len(GOOD)), replaced=st.integers(0, 40))
async def test_any_bytes_get_a_response_below_500(
    stack: GatewayStack, garbage: bytes, place: int, replaced: int
) -> None:
    request = GOOD[:place] + garbage + GOOD[place + replaced :]
    statuses, received = await talk(stack.gateway.port, request, b"\r\n\r\nX", wait=0.15, until_closed=False)
    assert all(status < 500 for status in statuses), received


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200)
    | st.text(max_size=100).map(str.encode)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
        max_leaves=15,
    ).map(lambda value: json.dumps(value).encode())
)
async def test_any_body_gets_a_client_error(stack: GatewayStack, body: bytes) -> None:
    for path in ("/1/2021-10-06/send_magic_link", "/1/webhook/stripe"):
        response = await stack.http.post(path, content=body)
        assert 400 <= response.status_code < 500, (path, response.text)
        assert response.json()["code"]
    assert stack.services.received == []
