"""Attacks on the memory and the connections of a gateway in a process of its own, measured by its resident memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.embedded import ports
from tests.gateway.conftest import INTERNAL_KEYS, ISSUER, WEBHOOK_SECRETS, GatewayStack
from tests.gateway.test_webhooks_stripe import event, signed
from tests.stack import API, Process, eventually

MEGABYTE = 1_000_000
CALL = b'{"client_id": "client_1"}'
REQUEST = (
    f"POST {API}/list_news_items HTTP/1.1\r\nHost: nest.test\r\nConnection: close\r\nContent-Length: {len(CALL)}"
    f"\r\n\r\n{CALL.decode()}"
).encode()


@dataclass
class Attacked:
    """A gateway that a test attacks."""

    process: Process
    port: int

    @property
    def resident(self) -> int:
        """Resident memory in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        return int(line.split()[1]) * 1024

    async def connect(self, local: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection from a loopback address."""
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(local, 0))

    async def status(self, request: bytes = REQUEST, local: str = "127.0.0.1") -> int:
        """Send one request on a new connection, and return the status of the response; 0 if there is none."""
        reader, writer = await self.connect(local)
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            writer.write(request)
            async with asyncio.timeout(20):
                line = await reader.readline()
            return int(line.split()[1]) if line else 0
        return 0


StartAttacked = Callable[..., AbstractAsyncContextManager[Attacked]]


@pytest.fixture
def attacked(stack: GatewayStack, tmp_path: Path) -> StartAttacked:
    """Runs a gateway in its own process, with further settings."""

    @asynccontextmanager
    async def run(**settings: str) -> AsyncIterator[Attacked]:
        port = ports.any_free()
        environment = {
            "NEST_ENVIRONMENT": "test",
            "NEST_KAFKA_BOOTSTRAP": stack.settings.kafka_bootstrap,
            "NEST_TOPIC_PREFIX": stack.settings.topic_prefix,
            "NEST_SEALING_KEYS": stack.settings.sealing_keys.get_secret_value(),
            "NEST_PORT": str(port),
            "NEST_ISSUER": ISSUER,
            "NEST_INTERNAL_KEYS": ",".join(INTERNAL_KEYS),
            "NEST_STRIPE_WEBHOOK_SECRETS": ",".join(WEBHOOK_SECRETS),
            "NEST_STRIPE_LIVEMODE": "false",
            **settings,
        }
        gateway = Attacked(Process("gateway", environment, tmp_path / "gateway.log"), port)
        await gateway.process.start()
        try:
            await eventually(lambda: _answers(gateway), within=60, what="start of the gateway")
            yield gateway
        finally:
            await gateway.process.kill()

    return run


async def _answers(gateway: Attacked) -> bool:
    try:
        return await gateway.status() == 204
    except OSError:
        return False


UNFINISHED = {
    "webhook without a signature": (b"POST /1/webhook/stripe", b"", 500_000, 200),
    "webhook with a forged signature": (b"POST /1/webhook/stripe", b"Stripe-Signature: t=%d,v1=%s\r\n", 500_000, 200),
    "mail webhook": (b"POST /1/webhook/mail", b"Nest-Signature: t=%d,v1=%s\r\n", 500_000, 200),
    "method": (b"POST /1/2021-10-06/send_magic_link", b"", 60_000, 1_200),
    "method in chunks": (b"POST /1/2021-10-06/send_magic_link", b"Transfer-Encoding: chunked\r\n", 60_000, 1_200),
    "path without a method": (b"POST /nothing", b"", 500_000, 200),
}
"""Request line, further headers, bytes of the body and number of the attacker's requests."""


@pytest.mark.parametrize("attack", UNFINISHED)
async def test_unfinished_bodies_take_bounded_memory(attacked: StartAttacked, stack: GatewayStack, attack: str) -> None:
    line, header, size, count = UNFINISHED[attack]
    if b"%d" in header:
        header %= (int(time.time()), b"0" * 64)
    start = b"" if b"chunked" in header else b"Content-Length: %d\r\n" % (size + 1)
    body = b"x" * size if start else b"%x\r\n" % (size + 1) + b"x" * size
    request = b"%s HTTP/1.1\r\nHost: nest.test\r\n%s%s\r\n%s" % (line, header, start, body)
    async with attacked(
        NEST_BODY_MEGABYTES="8", NEST_MAIL_WEBHOOK_SECRETS="the-secret-of-this-mail-webhook"
    ) as gateway:
        before = gateway.resident
        writers = []
        for _ in range(count):
            _, writer = await gateway.connect()
            writer.write(request)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            writers.append(writer)
        grown = gateway.resident - before
        # Meanwhile others are served, Stripe too.
        assert await gateway.status() == 204
        stripe_event = json.dumps(event()).encode()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as http:
            response = await http.post("/1/webhook/stripe", content=stripe_event, headers=signed(stripe_event))
        assert response.status_code == 200, response.text
        await eventually(lambda: any(each.topic == "stripe.webhooks" for each in stack.services.received))
        for writer in writers:
            writer.close()
        # The attack sends 72 to 100 MB.
        assert grown < 50 * MEGABYTE


async def test_spellings_of_one_bearer_token_take_bounded_memory(attacked: StartAttacked, stack: GatewayStack) -> None:
    token = stack.signer.token()

    async def call(gateway: Attacked, numbers: range) -> None:
        reader, writer = await gateway.connect()
        for number in numbers:
            scheme = "".join(letter.upper() if number >> place & 1 else letter for place, letter in enumerate("bearer"))
            padding = " " * (9_000 + number % 3_000)
            # A user's token is verified and then refused, because the method is for operators.
            writer.write(
                f"POST {API}/list_clients HTTP/1.1\r\nHost: nest.test\r\nContent-Length: 0\r\n"
                f"Authorization: {scheme} {padding}{token}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 403")
            await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
        writer.close()

    async with attacked() as gateway:
        await call(gateway, range(200))
        before = gateway.resident
        await asyncio.gather(*(call(gateway, range(first, first + 500)) for first in range(200, 4_200, 500)))
        # The headers have 42 MB.
        assert gateway.resident - before < 15 * MEGABYTE


async def test_idle_connections_of_one_peer_lock_nobody_out(attacked: StartAttacked) -> None:
    async with attacked(NEST_CONNECTIONS="300", NEST_CONNECTIONS_PER_PEER="100") as gateway:
        before = gateway.resident
        peers = ["127.0.0.1"] * 400 + [f"127.0.0.{number}" for number in range(10, 15) for _ in range(100)]
        opened = [await gateway.connect(peer) for peer in peers]
        assert await gateway.status() == 204
        assert await gateway.status(local="127.0.0.2") == 204
        closed = [reader.at_eof() for reader, _ in opened]
        assert 590 <= sum(closed) <= 610
        # The idlest ones were closed.
        assert all(closed[:300])
        assert not any(closed[-100:])
        assert gateway.resident - before < 30 * MEGABYTE
        for _, writer in opened:
            writer.close()
