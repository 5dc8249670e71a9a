"""How soon is Stripe answered at 500 events a second? ``python -m tests.bench.webhooks``.

An open loop: events are sent at their times, whether earlier ones were answered or not, and each one's time counts from
when it was due, so a stall shows in all that came meanwhile. The floor beside it puts records of the same size onto the
same Kafka, at the same rate, by the same clock, without any of Nest.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from tests.bench.http import Connection

RATE = 500
SECONDS = 20.0
CONNECTIONS = 64
WARM_UP = 3.0
ALLOWED_P99 = 50.0
"""Milliseconds."""
PADDING = "x" * 1500
Send = Callable[[], Awaitable[None]]


async def open_loop(send: Send, *, rate: int, seconds: float) -> list[float]:
    """Send at a rate for so long; returns how long each took from when it was due, in milliseconds, sorted."""
    took: list[float] = []
    began = time.perf_counter()

    async def one(due: float) -> None:
        await send()
        took.append((time.perf_counter() - due) * 1000)

    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            group.create_task(one(due))
    return sorted(took)


def body() -> bytes:
    """An event as large as Stripe's usually are, that Nest only keeps and counts."""
    subject = {"id": "in_1", "object": "invoice", "customer": f"cus_{secrets.randbelow(1000)}", "pad": PADDING}
    event = {
        "id": f"evt_{secrets.token_hex(12)}",
        "object": "event",
        "type": "invoice.updated",
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": subject},
    }
    return json.dumps(event).encode()


async def webhooks(told: dict[str, Any], *, seconds: float) -> list[float]:
    """Signed events to the gateway, over kept connections."""
    address = urlsplit(told["url"])
    assert address.hostname is not None
    assert address.port is not None
    free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await Connection.open(address.hostname, address.port))
    secret = told["webhook_secret"].encode()

    async def send() -> None:
        event, moment = body(), int(time.time())
        proof = hmac.new(secret, b"%d.%b" % (moment, event), hashlib.sha256).hexdigest()
        connection = await free.get()
        answer = await connection.post("/1/webhook/stripe", event, f"stripe-signature: t={moment},v1={proof}\r\n")
        assert answer.status == 200, answer.body
        free.put_nowait(connection)

    await open_loop(send, rate=RATE, seconds=WARM_UP)
    took = await open_loop(send, rate=RATE, seconds=seconds)
    while not free.empty():
        free.get_nowait().close()
    return took


async def floor(told: dict[str, Any], *, seconds: float) -> list[float]:
    """The same records onto Kafka, acknowledged by all in-sync replicas."""
    admin = AIOKafkaAdminClient(bootstrap_servers=told["kafka"])
    await admin.start()
    await admin.create_topics([NewTopic("bench.events", 4, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=told["kafka"], acks="all")
    await producer.start()

    async def send() -> None:
        await producer.send_and_wait("bench.events", body())

    try:
        await open_loop(send, rate=RATE, seconds=WARM_UP)
        return await open_loop(send, rate=RATE, seconds=seconds)
    finally:
        await producer.stop()


async def main(seconds: float) -> int:
    """Start everything, measure, print; 1 when the answers were too slow."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    with tempfile.TemporaryDirectory(prefix="nest-bench-") as folder:
        around = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.around", folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=1 << 20,
        )
        assert around.stdout is not None
        assert around.stdin is not None
        try:
            told = json.loads(await around.stdout.readline() or b"{}")
            results = {
                "floor: a record onto Kafka": await floor(told, seconds=seconds),
                "webhook ingress": await webhooks(told, seconds=seconds),
            }
        finally:
            around.stdin.close()
            await around.wait()
    table = Table(title=f"{RATE} a second for {seconds:g} s, open loop", title_justify="left")
    for column in ("what", "answered", "p50 ms", "p99 ms", "longest ms"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, took in results.items():
        p99 = took[len(took) * 99 // 100]
        table.add_row(name, str(len(took)), f"{took[len(took) // 2]:.1f}", f"{p99:.1f}", f"{took[-1]:.1f}")
    console.print(table)
    return int(p99 > ALLOWED_P99)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.webhooks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"how long (default {SECONDS:g})")
    sys.exit(uvloop.run(main(parser.parse_args().seconds)))
