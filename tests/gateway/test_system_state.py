"""State of the system as a gateway measures it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiokafka import TopicPartition

from services.gateway.system_state import RATE_SECONDS, Sample, SystemMonitor
from shared.bus.consumer_lag import Lag, Member, Members, PartitionLag
from shared.bus.kafka_connection import KafkaConnection
from shared.messages.gateway import GetSystemState, SystemStateView
from tests.gateway.conftest import GatewayStack

COMMANDS = TopicPartition("x.auth.commands", 0)


def lag(records: int, *, handled: int, end: int, oldest: int | None = None) -> Lag:
    return Lag(records, oldest, handled, (), {COMMANDS: PartitionLag(records, oldest, end)})


@pytest.fixture
async def monitor() -> SystemMonitor:
    return SystemMonitor(
        KafkaConnection("127.0.0.1:1"),
        prefix="x.",
        services=("auth", "mailer"),
        instance="gateway-1",
        problems=lambda: ["replies are not received"],
        calls_waiting=lambda: 3,
    )


async def test_rates_are_those_of_the_last_seconds(monitor: SystemMonitor) -> None:
    now = time.monotonic()
    old = Sample(now - RATE_SECONDS - 5, {"auth": 0}, {"auth.commands": 0}, 0)
    earlier = Sample(now - 8, {"auth": 100}, {"auth.commands": 200}, 0)
    latest = Sample(now, {"auth": 180}, {"auth.commands": 204}, 4)
    monitor.lags = {"auth": lag(2, handled=180, end=204), "mailer": Lag(0, None, 0, ())}
    monitor._samples.extend([old, earlier, latest])
    view = monitor._view()
    assert view.gateway.requests_per_second == 0.5
    assert [(each.service, each.handled_per_second) for each in view.services] == [("auth", 10.0), ("mailer", 0.0)]
    assert [(each.topic, each.lag_records, each.written_per_second) for each in view.topics] == [
        ("auth.commands", 2, 0.5)
    ]


async def test_service_without_members_is_away(monitor: SystemMonitor) -> None:
    oldest = int((time.time() - 60) * 1000)
    monitor.lags = {"auth": lag(4, handled=1, end=5, oldest=oldest), "mailer": Lag(0, None, 0, ())}
    monitor._members = {
        "auth": Members("Empty", ()),
        "mailer": Members("PreparingRebalance", (Member("mailer-1", "10.0.0.1", 0),)),
    }
    monitor._samples.append(Sample(time.monotonic(), {}, {}, 0))
    auth, mailer = monitor._view().services
    assert (auth.state, auth.instances, auth.lag_records) == ("away", (), 4)
    assert auth.lag_seconds is not None
    assert 60 <= auth.lag_seconds < 90
    assert (auth.handled_per_second, mailer.state) == (None, "rebalancing")


async def test_without_kafka_only_the_gateway_is_known(monitor: SystemMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.system_state.WAIT_SECONDS", 0.01)
    view = await monitor.answer(GetSystemState())
    assert (view.measured_at, view.services, view.topics) == (None, (), ())
    assert (view.gateway.problems, view.gateway.calls_waiting) == (("replies are not received",), 3)


async def test_state_is_measured_while_somebody_looks(stack: GatewayStack) -> None:
    """The stand-ins of the services consume without consumer groups, so all of them are away."""
    path = "/1/2026-12-01/get_system_state"
    views = [await looked(stack, path), await looked(stack, path)]
    async with asyncio.timeout(20):
        while views[-1].gateway.requests_per_second is None:
            await asyncio.sleep(0.2)
            views.append(await looked(stack, path))
    assert {each.service: each.state for each in views[-1].services} == dict.fromkeys(
        ("auth", "billing", "mailer", "news"), "away"
    )
    assert views[-1].gateway.requests > views[0].gateway.requests
    assert views[-1].gateway.problems == ()
    assert stack.services.received == []


async def looked(stack: GatewayStack, path: str) -> SystemStateView:
    response: Any = await stack.http.post(path, json={}, headers=stack.internal)
    assert response.status_code == 200, response.text
    return SystemStateView.model_validate_json(response.content)
