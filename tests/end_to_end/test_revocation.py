"""A chain is revoked: its tokens fail at every gateway within a second, also at one that starts later."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.embedded.demo import CLIENT_ID
from services.gateway.app import Gateway, create
from services.gateway.settings import GatewaySettings
from tests.stack import API, Stack, eventually

AT_ONCE = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "100"}
"""What makes Kafka compact as soon as it looks, which it does every fifteen seconds."""


def another_gateway(nest: Stack) -> Gateway:
    """One more gateway of this Nest, to be started."""
    told = {name.removeprefix("NEST_").lower(): value for name, value in nest.environment.items()}
    return create(GatewaySettings(**{**told, "port": "0"}))  # type: ignore[arg-type]


async def refresh(nest: Stack, refresh_token: str) -> httpx.Response:
    body = {"client_id": CLIENT_ID, "grant_type": "refresh_token", "refresh_token": refresh_token}
    return await nest.call("authenticate_user", body)


async def refused_for(nest: Stack, url: str, tokens: dict[str, Any]) -> str:
    """Why a gateway refuses an access token; empty when it takes it."""
    headers = {"authorization": f"bearer {tokens['access_token']}"}
    answer = await nest.http.post(f"{url}{API}/get_user", json={"user_id": tokens["user_id"]}, headers=headers)
    if answer.status_code == 200:
        return ""
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    reason: str = answer.json()["reasons"][0]["code"]
    return reason


async def stolen(nest: Stack, email: str) -> dict[str, Any]:
    """The newest tokens of a login whose chain has just been ended, since an old refresh token came back."""
    first = await nest.log_in(email)
    second = (await refresh(nest, first["refresh_token"])).json()
    newest: dict[str, Any] = (await refresh(nest, second["refresh_token"])).json()
    for url in nest.urls:
        assert await refused_for(nest, url, newest) == ""
    assert (await refresh(nest, first["refresh_token"])).status_code == 409
    return newest


async def test_a_token_of_a_revoked_chain_fails_at_every_gateway_within_a_second(nest: Stack, email: str) -> None:
    tokens = await stolen(nest, email)
    began = time.monotonic()
    assert len(nest.urls) == 2
    while {await refused_for(nest, url, tokens) for url in nest.urls} != {"token_revoked"}:
        assert time.monotonic() - began < 1.0


async def test_a_gateway_that_starts_later_knows_it(nest: Stack, email: str) -> None:
    tokens = await stolen(nest, email)
    await eventually(lambda: _revoked(nest, tokens))
    async with another_gateway(nest) as late:
        assert await refused_for(nest, f"http://127.0.0.1:{late.port}", tokens) == "token_revoked"


async def test_after_compaction_too(nest: Stack, email: str, kafka_admin: AIOKafkaAdminClient) -> None:
    tokens = await stolen(nest, email)
    await eventually(lambda: _revoked(nest, tokens))
    topic = f"{nest.environment['NEST_TOPIC_PREFIX']}auth.revocations"
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": "compact,delete", **AT_ONCE})
    await kafka_admin.alter_configs([resource])
    before = await _kept(nest, topic)
    async with AIOKafkaProducer(bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"], acks="all") as producer:

        async def compacted() -> bool:
            # A record now and then rolls the segment, without which Kafka compacts nothing.
            await producer.send_and_wait(topic, b"{}", b"the same key each time")
            await asyncio.sleep(0.2)
            kept, written = await _kept(nest, topic), await _end(nest, topic)
            return before < kept < written

        await eventually(compacted, within=90, what="compaction")
    async with another_gateway(nest) as late:
        assert await refused_for(nest, f"http://127.0.0.1:{late.port}", tokens) == "token_revoked"


async def _revoked(nest: Stack, tokens: dict[str, Any]) -> bool:
    return await refused_for(nest, nest.urls[0], tokens) == "token_revoked"


async def _end(nest: Stack, topic: str) -> int:
    async with AIOKafkaConsumer(bootstrap_servers=nest.environment["NEST_KAFKA_BOOTSTRAP"]) as consumer:
        (end,) = (await consumer.end_offsets([TopicPartition(topic, 0)])).values()
        return int(end)


async def _kept(nest: Stack, topic: str) -> int:
    """How many records there are to read."""
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
