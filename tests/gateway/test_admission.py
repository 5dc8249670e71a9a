"""Admission control: the limit follows the queueing delay, and refusals come before any other work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from services.gateway.admission import LIMIT_SECONDS, MIN_CALLS, STANDING_SECONDS, TARGET_SECONDS, CallLimit
from services.gateway.app import Gateway, create
from services.gateway.settings import GatewaySettings
from shared.bus.envelope import Envelope
from tests.gateway.conftest import ORIGIN, GatewayStack
from tests.stack import eventually

PATH = "/1/2021-10-06/get_user"
BODY = json.dumps({"user_id": "user_1"}).encode()
MAXIMUM = 2_000
Make = Callable[..., GatewaySettings]


class Calls:
    """Calls of one service on a clock of their own."""

    def __init__(self) -> None:
        self.now = 100.0
        self.limit = CallLimit("auth", MAXIMUM, lambda: self.now)
        self.limit.begin()

    def run(self, *, rate: int, queued: float | None, seconds: float, replied: bool = True) -> None:
        """Let calls end at a rate, each after the same queueing delay; one always waits."""
        for _ in range(int(rate * seconds)):
            self.limit.begin()
            self.now += 1 / rate
            self.limit.end(queued, replied=replied)


@pytest.mark.parametrize(
    ("rate", "queued", "seconds", "limit"),
    [
        pytest.param(1000, TARGET_SECONDS * 0.9, 5.0, MAXIMUM, id="no queue"),
        pytest.param(1000, TARGET_SECONDS * 3, 2.0, 1000 * LIMIT_SECONDS, id="standing queue"),
        pytest.param(3000, TARGET_SECONDS * 3, 2.0, 3000 * LIMIT_SECONDS, id="standing queue of a fast service"),
        pytest.param(20, 5.0, 5.0, MIN_CALLS, id="standing queue of a slow service"),
        pytest.param(1000, 5.0, 0.2, MAXIMUM, id="a moment, as after a rebalance"),
        pytest.param(1000, None, 5.0, MAXIMUM, id="replies that do not say how long the handling took"),
    ],
)
def test_limit_is_what_the_service_replies_to_within_the_delay(
    rate: int, queued: float | None, seconds: float, limit: float
) -> None:
    calls = Calls()
    calls.run(rate=rate, queued=queued, seconds=seconds)
    assert calls.limit.limit == pytest.approx(limit, rel=0.1)


@pytest.mark.parametrize(
    ("slow", "limit"), [pytest.param(3, MAXIMUM, id="a few slow keys"), pytest.param(7, 200, id="a few fast keys")]
)
def test_median_call_decides_whether_a_queue_stands(slow: int, limit: int) -> None:
    calls = Calls()
    for _ in range(200):
        calls.run(rate=1000, queued=2.0, seconds=slow / 1000)
        calls.run(rate=1000, queued=0.01, seconds=(10 - slow) / 1000)
    assert calls.limit.limit == pytest.approx(limit, rel=0.1)


def test_replies_to_all_waiting_calls_at_once_do_not_lift_the_limit() -> None:
    calls = Calls()
    calls.run(rate=1000, queued=1.0, seconds=2.0)
    for _ in range(100):
        calls.limit.end(1.0)
        calls.limit.begin()
        calls.run(rate=1000, queued=1.0, seconds=0.05)
    assert calls.limit.limit == pytest.approx(1000 * LIMIT_SECONDS, rel=0.1)


def test_service_without_replies_gets_few_calls_and_recovers_in_seconds() -> None:
    calls = Calls()
    calls.run(rate=100, queued=10.0, seconds=2.0, replied=False)
    assert calls.limit.limit == MIN_CALLS
    calls.run(rate=500, queued=0.0, seconds=3.0)
    assert calls.limit.limit == MAXIMUM


def test_limit_ends_when_no_call_waits() -> None:
    calls = Calls()
    calls.run(rate=100, queued=5.0, seconds=2.0)
    assert calls.limit.limit == MIN_CALLS
    calls.limit.end(None)
    calls.now += 2 * STANDING_SECONDS
    calls.limit.begin()
    assert calls.limit.limit == MAXIMUM


async def test_requests_read_in_one_iteration_count_before_their_calls_begin() -> None:
    limit = CallLimit("auth", 2)
    passed = 0
    for _ in range(5):
        if not limit.refuses():
            limit.arrive()
            passed += 1
    assert passed == 2
    await asyncio.sleep(0)
    assert not limit.refuses(), "the requests are still counted, although none began a call"


@asynccontextmanager
async def full_gateway(stack: GatewayStack, make_settings: Make) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    """A gateway whose only call is taken by a request without a reply."""
    release = asyncio.Event()

    async def wait(_: Envelope) -> None:
        await release.wait()

    stack.services.before_reply = wait
    settings = make_settings(topic_prefix=stack.settings.topic_prefix, calls_in_flight=1, cors_origins=ORIGIN)
    async with (
        create(settings) as gateway,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as http,
    ):
        news = {"client_id": "c"}
        taken = asyncio.create_task(http.post("/1/2021-10-06/list_news_items", json=news))
        await eventually(lambda: gateway._rpc_client.waiting == 1)
        yield gateway, http
        release.set()
        assert (await taken).status_code == 204


async def test_full_gateway_refuses_before_reading_anything(stack: GatewayStack, make_settings: Make) -> None:
    async with full_gateway(stack, make_settings) as (_, http):
        for content, headers in (
            (BODY, {"authorization": "bearer not-a-token"}),
            (b"not JSON", {}),
            (b"x" * 60_000, {"x-request-id": "mine"}),
            (BODY, {"origin": ORIGIN}),
            (BODY, {"expect": "100-continue"}),
        ):
            response = await http.post(PATH, content=content, headers=headers)
            assert (response.status_code, response.json()["code"]) == (429, "too_many_requests"), headers
            assert response.headers["retry-after"] == "1"
            request_id = response.headers["x-request-id"]
            assert response.json()["meta"] == {"retry_after": 1, "request_id": request_id}
            assert request_id == headers.get("x-request-id", request_id)
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers.get("access-control-allow-origin") == headers.get("origin")
        assert (await http.get("/healthz")).status_code == 200
        webhook = await http.post("/1/webhook/stripe", content=b"{}")
        assert webhook.json()["code"] != "too_many_requests"
        owner = await http.post("/appowner/login", json={})
        assert owner.json()["code"] == "too_many_requests"


async def test_refused_requests_keep_their_connection_and_their_order(stack: GatewayStack, make_settings: Make) -> None:
    def request(path: str, body: bytes) -> bytes:
        return b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), len(body), body)

    async with full_gateway(stack, make_settings) as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        # The last one closes the connection, so the end of the stream shows that nothing else follows.
        last = b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % PATH.encode()
        pipelined = [request(PATH, BODY), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", request(PATH, BODY), last]
        first = request(PATH, BODY)
        writer.write(first[:-5])
        await asyncio.sleep(0.05)
        writer.write(first[-5:])
        for each in pipelined:
            writer.write(each)
        statuses = [int(part[:3]) for part in (await reader.read()).split(b"HTTP/1.1 ")[1:]]
        writer.close()
        await writer.wait_closed()
    assert statuses == [429, 429, 200, 429, 429]


async def test_refused_head_request_gets_no_body(stack: GatewayStack, make_settings: Make) -> None:
    """RFC 9110 section 9.3.2: the client would read a body as the start of the next response."""
    async with full_gateway(stack, make_settings) as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"HEAD %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % PATH.encode())
        response = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert response.startswith(b"HTTP/1.1 4")
    assert response.endswith(b"\r\n\r\n")


async def test_overloaded_service_is_limited_and_the_others_are_not(stack: GatewayStack, make_settings: Make) -> None:
    """The fake service handles 100 calls a second; 200 clients call it, each again after its response."""
    settings = make_settings(topic_prefix=stack.settings.topic_prefix)
    ready = 0.0

    async def take_turns(envelope: Envelope) -> None:
        nonlocal ready
        if envelope.wire == "news.list-news-items":
            loop = asyncio.get_running_loop()
            ready = max(ready + 0.01, loop.time())
            await asyncio.sleep(ready - loop.time())

    stack.services.before_reply = take_turns
    stack.services.handling_milliseconds = 10
    async with create(settings) as gateway, asyncio.timeout(30):
        limits = gateway._rpc_client._limits
        base = f"http://127.0.0.1:{gateway.port}"
        async with httpx.AsyncClient(base_url=base, timeout=20, limits=httpx.Limits(max_connections=None)) as http:
            statuses: list[int] = []

            async def client(number: int) -> None:
                # Apps of their own: equal queries would be combined.
                news = {"client_id": f"c{number}"}
                while 429 not in statuses:
                    response = await http.post("/1/2021-10-06/list_news_items", json=news)
                    statuses.append(response.status_code)

            await asyncio.gather(*map(client, range(200)))
    assert 429 in statuses
    assert limits["auth.commands"].limit == settings.calls_in_flight
