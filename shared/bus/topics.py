"""Which topics does Nest have, with which partitions and retention? Declared here, applied by ``nest topics apply``.

Nothing is created by accident: brokers run with ``auto.create.topics.enable=false``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

MINUTE: Final = 60_000
DAY: Final = 24 * 60 * MINUTE
FOREVER: Final = -1
MEBIBYTE: Final = 1024 * 1024
REPLICATION_FOR_TWO: Final = 3
"""From this many replicas on, a write waits for two of them; below, for the only one."""
LEADER_SECONDS: Final = 60.0
"""How long a broker that is busy with others may take over a new topic."""
COMPACTED: Final = {
    # What is read whole at every start is kept short: Kafka never cleans the segment that is written to.
    "segment.ms": str(60 * MINUTE),
    "min.cleanable.dirty.ratio": "0.1",
    # What was removed must go, however little of the whole it is.
    "max.compaction.lag.ms": str(DAY),
}
"""What Kafka is told of a compacted topic."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic and what it keeps.

    Attributes:
        name: without the deployment's prefix.
        partitions: how many; decided once, since adding some later breaks the order of keys.
        retention: milliseconds that a record is kept, or FOREVER.
        compacted: only the newest record of each key is kept; with a retention, for so long at most.
        consumed: by a consumer group, hence with a ``.dead`` topic beside it.
    """

    name: str
    partitions: int
    retention: int
    compacted: bool = False
    consumed: bool = True

    def settings(self, replication: int) -> dict[str, str]:
        """Kafka's settings for it."""
        return {
            "cleanup.policy": self._cleanup,
            "retention.ms": str(self.retention),
            "min.insync.replicas": "2" if replication >= REPLICATION_FOR_TWO else "1",
            # A dead letter is the largest record there may be, and what is said about it.
            "max.message.bytes": str(2 * MEBIBYTE if self.name.endswith(".dead") else MEBIBYTE),
            **(COMPACTED if self.compacted else {}),
        }

    @property
    def _cleanup(self) -> str:
        if not self.compacted:
            return "delete"
        return "compact" if self.retention == FOREVER else "compact,delete"


SERVICES: Final = ("auth", "billing", "mailer", "news")
TOPICS: Final = (
    *(Topic(f"{service}.commands", 12, 7 * DAY) for service in SERVICES),
    *(Topic(f"{service}.events", 12, 7 * DAY) for service in SERVICES),
    Topic("stripe.webhooks", 12, 7 * DAY),
    # A reply that nobody has read for ten minutes answers nobody.
    Topic("gateway.replies", 64, 10 * MINUTE, consumed=False),
    Topic("auth.keys", 1, FOREVER, compacted=True, consumed=False),
    Topic("auth.clients", 1, FOREVER, compacted=True, consumed=False),
    # Twice the longest life of a token: whoever is revoked stays so until the token expires by itself.
    Topic("auth.revocations", 1, 2 * DAY, compacted=True, consumed=False),
)


def dead_letter_topic(topic: str) -> str:
    """Where a topic's dead letters go."""
    return f"{topic}.dead"


def declared(topics: Iterable[Topic] = TOPICS, *, max_partitions: int | None = None) -> tuple[Topic, ...]:
    """These topics, and the dead-letter one beside each that is consumed.

    Args:
        topics: Nest's own by default.
        max_partitions: fewer partitions than declared, for a deployment on one small machine.
    """
    whole = []
    for topic in topics:
        whole.append(replace(topic, partitions=min(topic.partitions, max_partitions or topic.partitions)))
        if topic.consumed:
            # Compacted, so that a letter can be removed before its time, for somebody who was erased.
            whole.append(Topic(dead_letter_topic(topic.name), 1, 30 * DAY, compacted=True, consumed=False))
    return tuple(whole)


async def apply(
    bootstrap: str,
    *,
    prefix: str = "",
    replication: int = 1,
    max_partitions: int | None = None,
    topics: Iterable[Topic] = TOPICS,
) -> list[str]:
    """Make the topics that are missing and set the settings of all.

    Args:
        bootstrap: ``host:port`` of brokers, separated by commas.
        prefix: leads every topic's name.
        replication: how many brokers keep each.
        max_partitions: as for ``declared``; topics that are there keep theirs.
        topics: Nest's own by default.

    Returns:
        The names of those that were made, with their prefix.

    Raises:
        KafkaError: Kafka could not be reached or refused.
    """
    wanted = declared(topics, max_partitions=max_partitions)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=30_000)
    try:
        await admin.start()
        present = set(await admin.list_topics())
        missing = [topic for topic in wanted if prefix + topic.name not in present]
        if missing:
            await _create(admin, missing, prefix, replication)
        old = [topic for topic in wanted if prefix + topic.name in present]
        if old:
            await admin.alter_configs([_resource(topic, prefix, replication) for topic in old])
        await _until_led(admin, [prefix + topic.name for topic in wanted])
        return [prefix + topic.name for topic in missing]
    finally:
        await admin.close()


async def check(
    bootstrap: str,
    *,
    prefix: str = "",
    replication: int = 1,
    max_partitions: int | None = None,
    topics: Iterable[Topic] = TOPICS,
) -> list[str]:
    """What differs from the declaration, one sentence each; empty when all is well.

    Args: as for ``apply``.

    Raises:
        KafkaError: Kafka could not be reached.
    """
    wanted = declared(topics, max_partitions=max_partitions)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        present = set(await admin.list_topics())
        names = [prefix + topic.name for topic in wanted if prefix + topic.name in present]
        partitions = {found["topic"]: len(found["partitions"]) for found in await admin.describe_topics(names)}
        wrong = [f"{prefix}{topic.name} is missing" for topic in wanted if prefix + topic.name not in present]
        for topic in wanted:
            name = prefix + topic.name
            if name not in partitions:
                continue
            if partitions[name] != topic.partitions:
                wrong.append(f"{name} has {partitions[name]} partitions instead of {topic.partitions}")
            found = await _settings(admin, name)
            wrong.extend(
                f"{name}: {setting} is {found.get(setting)} instead of {value}"
                for setting, value in topic.settings(replication).items()
                if found.get(setting) != value
            )
        return wrong
    finally:
        await admin.close()


async def _create(admin: AIOKafkaAdminClient, topics: Iterable[Topic], prefix: str, replication: int) -> None:
    response = await admin.create_topics(
        [
            NewTopic(prefix + topic.name, topic.partitions, replication, topic_configs=topic.settings(replication))
            for topic in topics
        ]
    )
    for name, code, *rest in response.topic_errors:
        error = for_code(code)
        # Two deployments of one release may apply at the same time.
        if code and error is not TopicAlreadyExistsError:
            raise error(f"{name}: {rest[0] if rest else ''}")


def _resource(topic: Topic, prefix: str, replication: int) -> ConfigResource:
    return ConfigResource(ConfigResourceType.TOPIC, prefix + topic.name, topic.settings(replication))


async def _settings(admin: AIOKafkaAdminClient, name: str) -> dict[str, str]:
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    return {entry[0]: entry[1] for response in responses for resource in response.resources for entry in resource[4]}


async def _until_led(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Wait until every partition has a leader: a topic that was just made can't be written to at once."""
    end = time.monotonic() + LEADER_SECONDS
    while time.monotonic() < end:
        topics = await admin.describe_topics(names)
        if all(
            topic["error_code"] == 0 and all(partition["leader"] >= 0 for partition in topic["partitions"])
            for topic in topics
        ):
            return
        await asyncio.sleep(0.1)
    raise KafkaError(f"the topics were made and have no leader after {LEADER_SECONDS:.0f} s")
