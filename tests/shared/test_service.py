"""Start, health and stop of a service."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.errors import KafkaConnectionError
from pymongo.errors import OperationFailure, ServerSelectionTimeoutError

from services.embedded import ports
from shared.listeners import CannotListen
from shared.settings import SettingsError
from shared.startup import DependencyUnavailable, retry_until_available
from tests.shared.bus_harness import BusHarness, wait_until
from tests.shared.sample_services import CONSUMED, Append

ROOT = Path(__file__).parent.parent.parent
PROCESS = [sys.executable, "-m", "tests.shared.sample_services", "ledger"]


def environment(**settings: str) -> dict[str, str]:
    other = {name: value for name, value in os.environ.items() if not name.startswith("NEST_")}
    return {**other, **settings}


def test_missing_settings_are_named_and_the_exit_code_is_78() -> None:
    done = subprocess.run(
        PROCESS,
        cwd=ROOT,
        env=environment(NEST_ENVIRONMENT="test"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "nest ledger can't start:",
        "NEST_KAFKA_BOOTSTRAP: is not set",
        "NEST_SEALING_KEYS: is not set",
        "NEST_MONGO_URL: is not set",
    ]


async def test_a_signal_ends_a_start_that_waits_for_dependencies(bus: BusHarness) -> None:
    port = ports.any_free()
    process = await asyncio.create_subprocess_exec(
        *PROCESS,
        cwd=ROOT,
        env=environment(**bus.environment(NEST_KAFKA_BOOTSTRAP=f"127.0.0.1:{port}")),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        while b"waiting for a dependency" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        async with asyncio.timeout(20):
            await process.stderr.read()
            assert await process.wait() == 0
        assert time.monotonic() - started < 15
    finally:
        if process.returncode is None:
            process.kill()


async def test_healthz_and_metrics_are_served(bus: BusHarness) -> None:
    port = ports.any_free()
    async with bus.running(health_port=port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        await bus.call(Append(subject="s", number=0))
        health = await client.get("/healthz")
        assert (health.status_code, health.json()) == (200, {"status": "ok"})
        metrics = (await client.get("/metrics")).text
        assert 'nest_messages_handled_total{outcome="done",service="ledger",type="ledger.append"}' in metrics
        assert "nest_message_seconds_bucket" in metrics
        assert 'nest_consumer_partitions_assigned{service="ledger"} 6.0' in metrics
        assert f'service="ledger",version="{version("nest")}"}} 1.0' in metrics
        for dependency in ("kafka", "mongodb"):
            assert f'nest_dependency_up{{dependency="{dependency}",service="ledger"}} 1.0' in metrics
        assert (await client.get("/other")).status_code == 404
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize(
    ("paused_minutes", "partitions", "failing"),
    [
        # Of 4 partitions.
        (5, [0], set()),
        (0, [0], {"/healthz"}),
        (5, range(4), {"/readyz"}),
    ],
)
async def test_paused_partitions_fail_the_readiness_at_once_and_the_health_later(
    bus: BusHarness, paused_minutes: int, partitions: Iterable[int], failing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONSUMED, "ledger", ("ledger.commands",))
    port = ports.any_free()
    async with (
        bus.running(health_port=port, paused_minutes=paused_minutes) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        for partition in partitions:
            for _ in range(12):
                await bus.put_record("ledger.commands", b"poison", partition=partition)

        async def paused() -> bool:
            return len(running.consumer.pauses.waiting) == len(list(partitions))

        await wait_until(paused)
        for path in ("/healthz", "/readyz"):
            response = await client.get(path)
            assert response.status_code == (503 if path in failing else 200), path
            if path in failing:
                assert response.json()["status"] == "failing"
                assert "10 dead letters in a row" in response.json()["reasons"][0]


async def test_a_port_in_use_fails_the_start_and_leaves_the_consumer_group(bus: BusHarness) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as occupied,
        pytest.raises(CannotListen, match=r"NEST_HEALTH_PORT: .*in use"),
    ):
        async with bus.running(health_port=occupied.getsockname()[1]):
            pass
    # The group was left, so the next instance gets all partitions at once.
    async with bus.running():
        started = time.monotonic()
        await bus.call(Append(subject="s", number=0))
        assert time.monotonic() - started < 15


async def test_other_failures_than_outages_are_not_retried() -> None:
    attempts = 0

    async def broken() -> None:
        nonlocal attempts
        attempts += 1
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await retry_until_available("MongoDB", broken)
    assert attempts == 1


@pytest.mark.parametrize(
    ("dependency", "failure", "text"),
    [
        ("Kafka", KafkaConnectionError("no broker responds"), "NEST_KAFKA_BOOTSTRAP: Kafka has not answered for 0 s: "),
        ("MongoDB", ServerSelectionTimeoutError("away"), "NEST_MONGO_URL: MongoDB has not answered for 0 s: away"),
    ],
)
async def test_retries_end_after_the_start_timeout(
    dependency: str, failure: Exception, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.startup.START_SECONDS", 0.0)

    async def unavailable() -> None:
        raise failure

    async with asyncio.timeout(30):
        with pytest.raises(DependencyUnavailable) as ended:
            await retry_until_available(dependency, unavailable)
    assert str(ended.value).startswith(text)
    assert "\n" not in str(ended.value)
    assert (ended.value.__cause__, ended.value.__context__) == (None, None)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (13, "NEST_MONGO_URL: MongoDB does not permit its user to read and write its database: grant it the role"),
        (18, "NEST_MONGO_URL: MongoDB refuses its user name, password or certificate"),
    ],
)
async def test_a_start_that_mongodb_refuses_is_not_retried(code: int, text: str) -> None:
    async def refused() -> None:
        raise OperationFailure("not authorized", code)

    with pytest.raises(SettingsError) as ended:
        await retry_until_available("MongoDB", refused)
    assert str(ended.value).startswith(text)


WITHOUT_PATIENCE = """
import sys
from shared import startup
startup.START_SECONDS = startup.LOG_SECONDS = 0.0
sys.argv = ["tests.shared.sample_services", "ledger"]
import runpy
runpy.run_module("tests.shared.sample_services", run_name="__main__")
"""


@pytest.mark.parametrize("dependency", ["Kafka", "MongoDB", "port"])
def test_a_failed_start_is_one_line_that_names_the_setting(bus: BusHarness, dependency: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port, free = occupied.getsockname()[1], ports.any_free()
        changed, text, code = {
            "Kafka": (
                {"NEST_KAFKA_BOOTSTRAP": f"127.0.0.1:{free}"},
                "NEST_KAFKA_BOOTSTRAP: Kafka has not answered",
                69,
            ),
            "MongoDB": ({"NEST_MONGO_URL": f"mongodb://127.0.0.1:{free}/"}, "NEST_MONGO_URL: MongoDB has not answ", 69),
            "port": (
                {"NEST_HEALTH_PORT": str(port)},
                f"NEST_HEALTH_PORT: port {port} at 127.0.0.1 is in use by another process",
                78,
            ),
        }[dependency]
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_PATIENCE],
            cwd=ROOT,
            env=environment(**bus.environment(**{"NEST_HEALTH_HOST": "127.0.0.1", **changed})),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    entries, last = done.stderr.splitlines()[:-2], done.stderr.splitlines()[-2:]
    assert (done.returncode, last[0]) == (code, "nest ledger can't start:")
    assert last[1].startswith(text)
    assert "Traceback" not in done.stderr
    assert all(json.loads(entry) for entry in entries)


async def first_entry(**settings: str) -> dict[str, Any]:
    """Start a service with these settings and return its first log entry."""
    process = await asyncio.create_subprocess_exec(
        *PROCESS, cwd=ROOT, env=environment(**settings), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(60):
            entry: dict[str, Any] = json.loads(await process.stderr.readline())
            return entry
    finally:
        process.kill()
        await process.wait()


async def test_a_start_says_at_once_what_it_waits_for(bus: BusHarness) -> None:
    port = ports.any_free()
    settings = bus.environment(NEST_MONGO_URL=f"mongodb://127.0.0.1:{port}/?replicaSet=rs0")
    entry = await first_entry(**settings)
    for _ in range(2):
        # A busy machine may delay one start.
        if entry["seconds"] > 6:
            entry = await first_entry(**settings)
    shown = {name: entry[name] for name in ("event", "dependency", "setting", "seconds")}
    assert shown == {
        "event": "waiting for a dependency",
        "dependency": "MongoDB",
        "setting": "NEST_MONGO_URL",
        "seconds": pytest.approx(2, abs=4),
    }
    assert f"127.0.0.1:{port}: [Errno 111]" in entry["reason"]
    assert "Topology" not in entry["reason"]


async def test_a_stop_soon_after_the_start_succeeds(bus: BusHarness) -> None:
    for pause in (0.0, 0.005, 0.05):
        async with asyncio.timeout(20), bus.running():
            await asyncio.sleep(pause)
