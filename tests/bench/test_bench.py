from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import pytest

from tests.bench import record_macs, telemetry
from tests.bench.conftest import RunBench
from tests.bench.flood import Flood
from tests.bench.goals import GOALS
from tests.bench.http_client import Connection
from tests.bench.profile_data import read
from tests.bench.rows import JOBS
from tests.bench.runner import Bench


@pytest.mark.slow
def test_every_row_runs_a_round_of_half_a_second(tmp_path: Path, run_bench: RunBench) -> None:
    picture = tmp_path / "plot.svg"
    options = ("--seconds", "0.5", "--runs", "1", "--warm-up", "0", "--plot", str(picture))
    results = run_bench("tests.bench", *options)
    bench = Bench.of_json(json.loads(results.read_text()))
    assert set(GOALS) == set(JOBS.values()) <= {row.name for row in bench.results}
    assert {goal.floor for goal in GOALS.values()} <= {row.name for row in bench.results}
    for row in bench.results:
        assert row.per_second > 0, row.name
        assert 0 < row.p50 <= row.p99 <= row.longest, row.name
    assert set(bench.idle) == {"services", "kafka", "mongo"}
    assert "504" not in bench.statuses
    assert picture.read_text().startswith("<svg")


@pytest.mark.slow
def test_profiles_show_every_round_trip(run_bench: RunBench) -> None:
    jobs = ("link_known", "refresh", "get_user")
    results = run_bench("tests.bench.profile", *jobs, "--seconds", "1")
    profiles = {profile.job: profile for profile in read(results)}
    assert tuple(profiles) == jobs
    steps = {step.name for step in profiles["link_known"].steps}
    assert {"record to auth", "record to mailer", "insert inbox", "commitTransaction admin", "smtp send"} <= steps
    for profile in profiles.values():
        assert profile.alone is not None
        assert profile.together is not None
        assert 0.9 < profile.requests["nest-gateway: PRODUCE"][0] < 1.5
        assert sum(profile.together.kafka.values()) > 100
        if profile.job == "get_user":
            continue
        assert profile.alone.mongo["commitTransaction"] > profile.together.mongo["commitTransaction"]
        assert profile.alone.commits["auth"] < profile.together.commits["auth"]
        assert sum(profile.stacks["auth"].packages.values()) > 0.9


@pytest.mark.slow
def test_subscription_status_is_as_fast_with_many_records(run_bench: RunBench) -> None:
    results = run_bench("tests.bench.subscription_status", "--records", "100000", "--seconds", "2")
    few, many = (
        next(row for row in json.loads(results.read_text()) if (row["name"], row["connections"]) == (name, 64))
        for name in ("billing over Kafka, 0 more records", "billing over Kafka, 100,000 more records")
    )
    # Generous, because other work of the machine may slow one of the two rounds down.
    assert few["per_second"] < 3 * many["per_second"]


def test_mac_of_a_record_takes_less_than_15_microseconds() -> None:
    assert max(record_macs.microseconds()) < 15


def test_logs_and_traces_that_are_off_take_less_than_20_microseconds() -> None:
    costs = telemetry.microseconds()
    # A call takes more than 1,000 µs of CPU. The limits leave room for a machine that is busy.
    assert costs["no line"] + costs["no traces"] < 20
    assert costs["line"] < 200


async def test_flood_sends_at_its_rate_and_counts_from_when_a_request_was_due() -> None:
    loop = asyncio.get_running_loop()
    count = 0

    class Slow(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)

        def data_received(self, data: bytes) -> None:  # noqa: ARG002 -- the interface
            nonlocal count
            count += 1
            status = 200 if count % 2 else 429
            response = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % status
            loop.call_later(0.05, self.transport.write, response)

    server = await loop.create_server(Slow, "127.0.0.1", 0)
    flood = Flood("127.0.0.1", server.sockets[0].getsockname()[1], [b"GET / HTTP/1.1\r\n\r\n"], client_seconds=20)
    await flood.connect(2)
    elapsed = await flood.run(rate=100, seconds=0.4)
    flood.close()
    server.close()
    assert {status: len(latencies) for status, latencies in flood.latencies.items()} == {200: 20, 429: 20}
    assert flood.timeouts == flood.closed == 0
    # Two connections need a second for what was due within 0.4 s.
    assert elapsed > 0.9
    assert max(flood.latencies[200] + flood.latencies[429]) > 0.5


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
