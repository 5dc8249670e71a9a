"""A gateway that crashes during a request: accepted messages are not lost, and a repeat elsewhere resolves the call."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.embedded import ports
from shared.fault_points import EXIT_CODE
from tests.gateway.conftest import INTERNAL_KEYS, ISSUER, WEBHOOK_SECRETS, GatewayStack
from tests.gateway.test_webhooks_stripe import event, signed
from tests.stack import Process, eventually

CALL = "/1/2021-10-06/set_marketing_consent"
CONSENT = {"user_id": "user_1", "level": "general"}
StartCrashing = Callable[[str], Awaitable[tuple[Process, str]]]


@pytest.fixture
async def start_crashing(stack: GatewayStack, tmp_path: Path) -> AsyncIterator[StartCrashing]:
    """Starts a gateway that crashes at a fault point; returns its process and URL."""
    started: list[Process] = []

    async def start(point: str) -> tuple[Process, str]:
        port = ports.any_free()
        settings = stack.settings
        environment = {
            "NEST_ENVIRONMENT": "test",
            "NEST_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "NEST_TOPIC_PREFIX": settings.topic_prefix,
            "NEST_SEALING_KEYS": settings.sealing_keys.get_secret_value(),
            "NEST_PORT": str(port),
            "NEST_ISSUER": ISSUER,
            "NEST_INTERNAL_KEYS": ",".join(INTERNAL_KEYS),
            "NEST_STRIPE_WEBHOOK_SECRETS": ",".join(WEBHOOK_SECRETS),
            "NEST_STRIPE_LIVEMODE": "false",
            "NEST_CRASH_AT": point,
        }
        process = Process("gateway", environment, tmp_path / f"{point}.log")
        started.append(process)
        await process.start()
        url = f"http://127.0.0.1:{port}"
        await eventually(lambda: _is_healthy(url), within=30, what=f"start of a gateway that crashes at {point}")
        return process, url

    yield start
    for process in started:
        await process.kill()


async def _is_healthy(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{url}/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def _crash(process: Process, url: str, **request: Any) -> None:
    """Send a request that crashes the gateway."""
    async with httpx.AsyncClient(timeout=20) as http:
        with pytest.raises(httpx.TransportError):
            await http.post(url, **request)
    assert await process.ended() == EXIT_CODE


@pytest.mark.parametrize(("point", "messages"), [("G1", 0), ("G2", 1)])
async def test_repeat_at_another_gateway_resolves_an_interrupted_call(
    stack: GatewayStack, start_crashing: StartCrashing, point: str, messages: int
) -> None:
    process, url = await start_crashing(point)
    request = {"json": CONSENT, "headers": {"idempotency-key": point, **stack.internal}}
    await _crash(process, url + CALL, **request)
    repeated = await stack.http.post(CALL, **request)
    assert repeated.status_code == 204
    received = stack.services.received
    assert len(received) == messages + 1
    assert len({(envelope.id, envelope.fingerprint) for envelope in received}) == 1


async def test_event_is_stored_although_its_response_was_lost(
    stack: GatewayStack, start_crashing: StartCrashing
) -> None:
    process, url = await start_crashing("W1")
    body = json.dumps(event()).encode()
    await _crash(process, f"{url}/1/webhook/stripe", content=body, headers=signed(body))
    await eventually(lambda: [event.body for event in stack.services.received] == [body])
    assert (await stack.http.post("/1/webhook/stripe", content=body, headers=signed(body))).status_code == 200
    await eventually(lambda: len(stack.services.received) == 2)
    assert len({event.id for event in stack.services.received}) == 1
