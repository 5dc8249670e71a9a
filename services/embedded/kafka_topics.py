"""Is an embedded Kafka ready for services? It has the topics, and no consumer group counts on dead members."""

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
"""Of each topic; one machine has no use for more, and each costs memory and files."""


async def make_ready(kafka: EmbeddedKafka) -> None:
    """Makes it ready; it must have just started, with no service running on it."""
    prefix = os.environ.get("NEST_TOPIC_PREFIX", "")
    await topics.apply(kafka.bootstrap, prefix=prefix, max_partitions=PARTITIONS)
    if kafka.left_over:
        await remove_dead_members(kafka, tuple(prefix + service for service in topics.SERVICES))


PATIENCE_SECONDS = 10.0
"""How long the groups' coordinator may take to read what it knows, after a start."""


async def remove_dead_members(kafka: EmbeddedKafka, groups: tuple[str, ...]) -> None:
    """Removes all members of these groups. Only for a Kafka that has just started and that nobody else uses.

    What does not work within some seconds is left to Kafka's own patience.
    """
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    await client.bootstrap()
    try:
        await asyncio.gather(*(_remove_members(client, group) for group in groups))
    finally:
        await client.close()


async def _remove_members(client: AIOKafkaClient, group: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            described = await client.send(node, DescribeGroupsRequest([group]), group=ConnectionGroup.COORDINATION)
            error, _, _, _, _, members, *_ = described.groups[0]
            if not error:
                for member in members:
                    leave = LeaveGroupRequest(group, member[0])
                    await client.send(node, leave, group=ConnectionGroup.COORDINATION)
                return
        except KafkaError:
            pass  # the coordinator is not there yet
        await asyncio.sleep(0.1)
