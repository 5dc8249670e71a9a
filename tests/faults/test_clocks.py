"""A process whose clock is wrong takes no messages and is reported; callers are served by the others."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.embedded import ports
from services.operator.doctor.findings import Level
from services.operator.doctor.instances import check_clocks
from shared.bus.kafka_connection import KafkaConnection
from tests.bench.recovery import SpawnedProcess
from tests.end_to_end.flows import macs_of
from tests.stack import eventually

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@pytest.mark.parametrize("skew", ["-600", pytest.param("+600", marks=pytest.mark.slow)])
async def test_an_instance_with_a_wrong_clock_takes_no_messages(
    run_nest: Callable[..., AbstractAsyncContextManager[Any]], tmp_path: Path, skew: str
) -> None:
    assert LIBRARIES, "apt-get install libfaketime"
    async with run_nest(separate=("auth",)) as nest:
        port = ports.any_free()
        wrong = SpawnedProcess("auth", {**nest.environment, "NEST_HEALTH_PORT": str(port)}, tmp_path / "wrong.log")
        await wrong.start(LD_PRELOAD=str(LIBRARIES[0]), FAKETIME=skew, FAKETIME_DONT_FAKE_MONOTONIC="1")
        try:
            reasons = await eventually(lambda: failing(port), what="the health check of the process")
            assert "clock is 600 s" in reasons[0]
            for number in range(8):
                await nest.log_in(f"p{number}@example.com")
            kafka = KafkaConnection(nest.environment["NEST_KAFKA_BOOTSTRAP"])
            findings = check_clocks(kafka, nest.environment["NEST_TOPIC_PREFIX"], macs_of(nest))
            (found,) = [finding async for finding in findings if finding.says.startswith("the clock of auth")][:1]
            assert found.level is Level.PROBLEM
            assert "nest_messages_handled_total{" not in await metrics(port)
            assert wrong.log.count("clock is wrong") == 1
        finally:
            await wrong.stop()


async def failing(port: int) -> list[str]:
    """Return the reasons why the process is unhealthy, none before it responds."""
    async with httpx.AsyncClient() as http:
        try:
            response = await http.get(f"http://127.0.0.1:{port}/healthz")
        except httpx.TransportError:
            return []
    return response.json().get("reasons", []) if response.status_code == 503 else []


async def metrics(port: int) -> str:
    async with httpx.AsyncClient() as http:
        return (await http.get(f"http://127.0.0.1:{port}/metrics")).text
