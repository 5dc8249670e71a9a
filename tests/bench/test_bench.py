from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from tests.bench.http_client import Connection

ROWS = {
    "floor: echo over Kafka",
    "floor: record onto Kafka",
    "floor: record onto Kafka, open loop",
    "floor: MongoDB insert",
    "floor: MongoDB transaction",
    "floor: MongoDB read",
    "send_magic_link",
    "authenticate_user, code",
    "authenticate_user, refresh",
    "get_user",
    "get_subscription_status",
    "webhook ingress",
    "webhook ingress, open loop",
}


def test_every_row_runs_a_round_of_one_second(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    options = ("--seconds", "1", "--runs", "1", "--warm-up", "0", "--connections", "4", "--codes", "600")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench", *options, "--json", str(results)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    measured = {row["name"]: row for row in json.loads(results.read_text())}
    assert set(measured) == ROWS
    for name, row in measured.items():
        assert row["per_second"] > 0, name
        assert 0 < row["p50"] <= row["p99"] <= row["longest"], name


async def test_connection_closed_by_the_server_is_reopened() -> None:
    connections = 0

    async def serve_one_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve_one_request, "127.0.0.1", 0)
    connection = Connection("127.0.0.1", server.sockets[0].getsockname()[1])
    for expected in (1, 2):
        assert (await connection.post("/", b"")).status == 204
        assert connections == expected
        await asyncio.wait_for(connection.closed(), 5)
    connection.close()
    server.close()
    await server.wait_closed()
