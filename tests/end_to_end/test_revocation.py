"""Revocation of access tokens at every gateway: within a second, after a restart, and after Kafka's compaction."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.embedded.demo import CLIENT_ID
from services.gateway.app import Gateway, create
from services.gateway.settings import GatewaySettings
from tests.stack import API, REDIRECT_URI, Login, Stack, eventually

COMPACT_AT_ONCE = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100"}
"""Settings of a topic that Kafka compacts each time that its log cleaner runs, every 15 seconds."""


def another_gateway(nest: Stack) -> Gateway:
    """Create one more gateway of this Nest."""
    settings = {name.removeprefix("NEST_").lower(): value for name, value in nest.environment.items()}
    return create(GatewaySettings(**{**settings, "port": "0"}))  # type: ignore[arg-type]


async def refresh(nest: Stack, refresh_token: str) -> httpx.Response:
    body = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": refresh_token}
    return await nest.call("authenticate_user", body)


async def reason_of_refusal(nest: Stack, url: str, tokens: dict[str, Any]) -> str:
    """Return why a gateway refuses an access token; empty if it accepts it."""
    headers = {"authorization": f"bearer {tokens['access_token']}"}
    response = await nest.http.post(f"{url}{API}/get_user", json={"user_id": tokens["user_id"]}, headers=headers)
    if response.status_code == 200:
        return ""
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    reason: str = response.json()["reasons"][0]["code"]
    return reason


async def steal(nest: Stack, email: str) -> dict[str, Any]:
    """Log in, refresh twice, use the first refresh token again, and return the newest tokens, now revoked."""
    first = await nest.log_in(email)
    second = (await refresh(nest, first["refresh_token"])).json()
    newest: dict[str, Any] = (await refresh(nest, second["refresh_token"])).json()
    for url in nest.urls:
        assert await reason_of_refusal(nest, url, newest) == ""
    assert (await refresh(nest, first["refresh_token"])).status_code == 409
    return newest


async def revoked(nest: Stack, tokens: dict[str, Any]) -> bool:
    return {await reason_of_refusal(nest, url, tokens) for url in nest.urls} == {"token_revoked"}


async def test_gateways_refuse_revoked_tokens_in_a_second_and_after_start(nest: Stack, email: str) -> None:
    tokens = await steal(nest, email)
    assert len(nest.urls) == 2

    await eventually(lambda: revoked(nest, tokens), within=1.0, what="the revocation")

    async with another_gateway(nest) as late:
        assert await reason_of_refusal(nest, f"http://127.0.0.1:{late.port}", tokens) == "token_revoked"


@pytest.mark.slow
async def test_revocation_survives_compaction(nest: Stack, email: str, kafka_admin: AIOKafkaAdminClient) -> None:
    tokens = await steal(nest, email)
    await eventually(lambda: revoked(nest, tokens), what="the revocation")
    topic = f"{nest.environment['NEST_TOPIC_PREFIX']}auth.revocations"
    settings = {"cleanup.policy": "compact,delete", **COMPACT_AT_ONCE}
    await kafka_admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)])
    before = await _count(nest, topic)
    async with AIOKafkaProducer(bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"], acks="all") as producer:

        async def compacted() -> bool:
            # Kafka compacts closed segments only; each record closes one.
            await producer.send_and_wait(topic, b"{}", b"the same key each time")
            await asyncio.sleep(0.2)
            count, end = await _count(nest, topic), await _end(nest, topic)
            return before < count < end

        await eventually(compacted, within=90, what="compaction")
    async with another_gateway(nest) as late:
        assert await reason_of_refusal(nest, f"http://127.0.0.1:{late.port}", tokens) == "token_revoked"


async def test_gateways_refuse_tokens_of_a_disabled_client_in_a_second(nest: Stack, email: str) -> None:
    client_id = (await nest.create_client())["id"]
    login = {"client_id": client_id, "redirect_uri": REDIRECT_URI}
    tokens = await nest.log_in(email, **login)
    user = {"user_id": tokens["user_id"]}
    bearer = {"authorization": f"bearer {tokens['access_token']}"}

    async def everywhere(status: int) -> bool:
        return {
            (await nest.http.post(f"{url}{API}/get_user", json=user, headers=bearer)).status_code for url in nest.urls
        } == {status}

    await eventually(lambda: everywhere(200), what="the client at every gateway")
    await nest.call("update_client", {"id": client_id, "disabled": True}, **nest.internal)
    await eventually(lambda: everywhere(401), within=1, what="refusal of its tokens")
    request = await nest.call("send_magic_link", Login(email, **login).request())
    assert (request.status_code, request.json()["code"]) == (403, "client_disabled")
    await nest.call("update_client", {"id": client_id, "disabled": False}, **nest.internal)
    await eventually(lambda: everywhere(200), within=1, what="acceptance of its tokens")


async def _end(nest: Stack, topic: str) -> int:
    async with AIOKafkaConsumer(bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"]) as consumer:
        (end,) = (await consumer.end_offsets([TopicPartition(topic, 0)])).values()
        return int(end)


async def _count(nest: Stack, topic: str) -> int:
    """Return the number of records that can be read."""
    partition = TopicPartition(topic, 0)
    count = 0
    bootstrap = nest.environment["NEST_KAFKA_BOOTSTRAP"]
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([partition])
        (end,) = (await consumer.end_offsets([partition])).values()
        while await consumer.position(partition) < end:
            batches = await consumer.getmany(timeout_ms=500)
            count += sum(map(len, batches.values()))
            if not batches:
                break
    return count
