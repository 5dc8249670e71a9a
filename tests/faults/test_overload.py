"""Overload: admitted calls are fast, refused ones have no effect, and Nest recovers in seconds."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.bench.flood import Flood
from tests.stack import API, Login, Stack, eventually

SEPARATE = ("gateway", "auth")
CONNECTIONS = 2_400
"""More than the calls that may wait for a service in any case."""
SETTINGS = {"NEST_CONNECTIONS_PER_PEER": str(2 * CONNECTIONS)}
RECOVERY_SECONDS = 10.0


async def test_bursts_of_reads_and_links_leave_no_phantom_and_no_queue(
    nest: Stack, chaos: random.Random, rounds: int
) -> None:
    tokens = await nest.log_in("reader@example.com")
    request = _get_user(nest.urls[0], tokens)
    capacity = await _capacity(nest, request)
    accepted: list[str] = []
    refused: list[str] = []
    for number in range(rounds):
        flood = _flood(nest, request)
        await flood.connect(CONNECTIONS)
        enough = asyncio.Event()
        links = asyncio.create_task(_order_links(nest, f"r{number}", accepted, refused, enough))
        await flood.run(capacity * chaos.uniform(4, 8), chaos.uniform(2, 4))
        enough.set()
        await links
        flood.close()
        assert flood.latencies.get(429), "no call was refused: the fault did not happen"
        assert set(flood.latencies) == {200, 429}
        assert flood.timeouts == flood.closed == 0
        admitted = sorted(flood.latencies[200])
        assert admitted[len(admitted) * 99 // 100] < 5.0, "admitted calls waited too long"
        ended = time.monotonic()
        await eventually(lambda: _accepted(nest, tokens), within=RECOVERY_SECONDS, what="an admitted call")
        assert time.monotonic() - ended < RECOVERY_SECONDS
    await eventually(lambda: len(nest.inbox.arrivals()) >= len(accepted) + 1, what="the mails")
    assert sorted(arrival.to for arrival in nest.inbox.arrivals()) == sorted([*accepted, "reader@example.com"])
    assert not {arrival.to for arrival in nest.inbox.arrivals()} & set(refused)


def _get_user(url: str, tokens: dict[str, Any]) -> bytes:
    body = json.dumps({"user_id": tokens["user_id"]}).encode()
    head = f"POST {API}/get_user HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}authorization: bearer {tokens['access_token']}\r\n\r\n".encode() + body


def _flood(nest: Stack, request: bytes) -> Flood:
    url = urlsplit(nest.urls[0])
    assert url.hostname is not None
    assert url.port is not None
    return Flood(url.hostname, url.port, [request], client_seconds=30.0)


async def _capacity(nest: Stack, request: bytes) -> float:
    """Calls that Nest handles in a second, measured with few callers."""
    flood = _flood(nest, request)
    await flood.connect(16)
    elapsed = await flood.run(10_000, 0.1)
    flood.close()
    return len(flood.latencies[200]) / elapsed


async def _accepted(nest: Stack, tokens: dict[str, Any]) -> bool:
    headers = {"authorization": f"bearer {tokens['access_token']}"}
    return (await nest.call("get_user", {"user_id": tokens["user_id"]}, **headers)).status_code == 200


async def _order_links(
    nest: Stack, prefix: str, accepted: list[str], refused: list[str], enough: asyncio.Event
) -> None:
    async with httpx.AsyncClient(base_url=nest.urls[0], timeout=30) as http:
        number = 0
        while not enough.is_set():
            number += 1
            email = f"{prefix}.{number}@example.com"
            response = await http.post(f"{API}/send_magic_link", json=Login(email).request())
            assert response.status_code in {204, 429}, response.text
            (accepted if response.status_code == 204 else refused).append(email)


@pytest.mark.slow
async def test_links_are_refused_while_the_mailer_is_away_too_long_for_them(
    run_nest: Callable[..., AbstractAsyncContextManager[Any]],
) -> None:
    """A link of a minute is ordered while the mailer has been away for less than 15 s, and mailed within 30 s."""
    async with run_nest(separate=("mailer",), settings={"NEST_AUTHORIZATION_MINUTES": "1"}) as nest:
        await nest.log_in("before@example.com")
        await nest.processes["mailer"].stop()
        accepted = ["before@example.com"]
        refused: list[httpx.Response] = []
        stopped = time.monotonic()
        while not refused:
            assert time.monotonic() - stopped < 60, "no link was refused"
            email = f"{len(accepted)}@example.com"
            response = await nest.call("send_magic_link", Login(email).request())
            if response.status_code == 204:
                accepted.append(email)
            else:
                refused.append(response)
            await asyncio.sleep(0.5)
        assert time.monotonic() - stopped > 14
        assert (refused[0].status_code, refused[0].json()["code"]) == (503, "unavailable")
        assert int(refused[0].headers["retry-after"]) >= 1
        await nest.processes["mailer"].start()

        async def accepted_again() -> bool:
            response = await nest.call("send_magic_link", Login("after@example.com").request())
            return response.status_code == 204

        await eventually(accepted_again, within=30, what="a link after the backlog")
        await nest.mail("after@example.com")
        # On a slow machine the first ones may have expired.
        mailed = {arrival.to for arrival in nest.inbox.arrivals()}
        assert mailed <= {*accepted, "after@example.com"}
        assert accepted[-1] in mailed
