"""Is an embedded Kafka ready for services? It has the topics, and no consumer group counts on dead members."""

import os

from services.embedded.dead_members import show_out_dead_members
from services.embedded.kafka import EmbeddedKafka
from shared.bus import topics

PARTITIONS = 4
"""Of each topic; one machine has no use for more, and each costs memory and files."""


async def make_ready(kafka: EmbeddedKafka) -> None:
    """Makes it ready; it must have just started, with no service running on it."""
    prefix = os.environ.get("NEST_TOPIC_PREFIX", "")
    await topics.apply(kafka.bootstrap, prefix=prefix, most_partitions=PARTITIONS)
    if kafka.left_over:
        await show_out_dead_members(kafka, tuple(prefix + service for service in topics.SERVICES))
