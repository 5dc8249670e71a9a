"""Preparation of the embedded Kafka: topics, and consumer groups without dead members."""

import asyncio
import os
import time

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import LeaveGroupRequest

from services.embedded.kafka import EmbeddedKafka
from shared.bus import topics

PARTITIONS = 4
"""Maximum partitions per topic: one machine needs no more, and each costs memory and files."""
COORDINATOR_SECONDS = 10.0
"""How long a group's coordinator may take to load its state after a start."""


async def prepare(kafka: EmbeddedKafka) -> None:
    """Create the topics and remove dead members. Kafka must have just started, without services on it."""
    prefix = os.environ.get("NEST_TOPIC_PREFIX", "")
    await topics.apply(kafka.bootstrap, prefix=prefix, max_partitions=PARTITIONS)
    if kafka.left_over:
        await remove_dead_members(kafka, tuple(prefix + service for service in topics.SERVICES))


async def remove_dead_members(kafka: EmbeddedKafka, groups: tuple[str, ...]) -> None:
    """Remove all members of these groups from a Kafka that has just started and that nobody else uses.

    Members that cannot be removed within 10 s are left to Kafka's session timeout.
    """
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    await client.bootstrap()
    try:
        await asyncio.gather(*(_remove_members(client, group) for group in groups))
    finally:
        await client.close()


async def _remove_members(client: AIOKafkaClient, group: str) -> None:
    deadline = time.monotonic() + COORDINATOR_SECONDS
    while time.monotonic() < deadline:
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await client.send(node, DescribeGroupsRequest([group]), group=ConnectionGroup.COORDINATION)
            error, _, _, _, _, members, *_ = response.groups[0]
            if not error:
                for member in members:
                    leave = LeaveGroupRequest(group, member[0])
                    await client.send(node, leave, group=ConnectionGroup.COORDINATION)
                return
        except KafkaError:
            pass  # the coordinator is not available yet
        await asyncio.sleep(0.1)
