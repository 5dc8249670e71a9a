"""Who is still counted as a member of a consumer group although its process was killed?

Kafka waits for such members, ten seconds as our consumers ask for, before it gives their partitions to others. On a
machine whose services all end together, those who are members when Kafka starts are dead, so they can be shown out.
"""

import asyncio
import time

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import LeaveGroupRequest

from services.embedded.kafka import EmbeddedKafka

PATIENCE_SECONDS = 10.0
"""How long the groups' coordinator may take to read what it knows, after a start."""


async def show_out_dead_members(kafka: EmbeddedKafka, groups: tuple[str, ...]) -> None:
    """Removes all members of these groups. Only for a Kafka that has just started and that nobody else uses.

    What does not work within some seconds is left to Kafka's own patience.
    """
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    await client.bootstrap()
    try:
        await asyncio.gather(*(_show_out(client, group) for group in groups))
    finally:
        await client.close()


async def _show_out(client: AIOKafkaClient, group: str) -> None:
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
