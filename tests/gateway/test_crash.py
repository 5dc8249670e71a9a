"""A gateway killed in the middle of a request: what it took is not lost, and a repeat elsewhere resolves it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.embedded import ports
from shared.fault_points import EXIT_CODE
from tests.gateway.conftest import INTERNAL_KEYS, ISSUER, WEBHOOK_SECRETS, World
from tests.gateway.test_stripe_webhook import event, signed
from tests.stack import Process, eventually

CALL = "/1/2021-10-06/set_marketing_consent"
CONSENT = {"user_id": "user_1", "level": "general"}
Dying = Callable[[str], Awaitable[tuple[Process, str]]]


@pytest.fixture
async def dying(world: World, tmp_path: Path) -> AsyncIterator[Dying]:
    """Starts a gateway that dies at a point; gives its process and address."""
    started: list[Process] = []

    async def start(point: str) -> tuple[Process, str]:
        port = ports.any_free()
        settings = world.settings
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
        await eventually(lambda: _well(url), within=30, what=f"a gateway that dies at {point}")
        return process, url

    yield start
    for process in started:
        await process.kill()


async def _well(url: str) -> bool:
    try:
        async with httpx.AsyncClient() as http:
            return (await http.get(f"{url}/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def _dies(process: Process, url: str, **request: Any) -> None:
    """Send a request that the gateway does not survive."""
    async with httpx.AsyncClient(timeout=20) as http:
        with pytest.raises(httpx.TransportError):
            await http.post(url, **request)
    assert await process.ended() == EXIT_CODE


@pytest.mark.parametrize(("point", "sent_before"), [("G1", 0), ("G2", 1)])
async def test_a_call_that_was_cut_off_is_resolved_by_its_key_at_another_gateway(
    world: World, dying: Dying, point: str, sent_before: int
) -> None:
    process, url = await dying(point)
    request = {"json": CONSENT, "headers": {"idempotency-key": point, **world.internal}}
    await _dies(process, url + CALL, **request)
    repeated = await world.http.post(CALL, **request)
    assert repeated.status_code == 204
    heard = world.services.received
    assert len(heard) == sent_before + 1
    assert len({(envelope.id, envelope.fingerprint) for envelope in heard}) == 1


async def test_an_event_that_stripe_was_not_told_of_is_stored_all_the_same(world: World, dying: Dying) -> None:
    process, url = await dying("W1")
    body = json.dumps(event()).encode()
    await _dies(process, f"{url}/1/webhook/stripe", content=body, headers=signed(body))
    await eventually(lambda: [stored.body for stored in world.services.received] == [body])
    assert (await world.http.post("/1/webhook/stripe", content=body, headers=signed(body))).status_code == 200
    await eventually(lambda: len(world.services.received) == 2)
    assert len({stored.id for stored in world.services.received}) == 1
