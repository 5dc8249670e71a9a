"""Kafka topics: names, partitions and retention, declared here and applied by ``nest topics apply``.

Brokers run with ``auto.create.topics.enable=false``, so that no topic is created by accident.
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

from shared.bus.kafka_connection import KafkaConnection
from shared.messages.auth.partitions import PAUSED_PARTITIONS

MINUTE: Final = 60_000
DAY: Final = 24 * 60 * MINUTE
FOREVER: Final = -1
MEBIBYTE: Final = 1024 * 1024
MIN_REPLICATION_FOR_TWO: Final = 3
"""From this replication factor on, a write waits for two in-sync replicas; below, for one."""
LEADER_SECONDS: Final = 60.0
"""How long a busy broker may take to elect the leaders of new topics."""
SEGMENT: Final = DAY // 4
"""Longest time whose records Kafka puts into one segment, milliseconds. It deletes whole segments, the active one
never. By default a segment has a week or a gigabyte, and a topic of ten minutes would be kept for a week."""
COMPACTED: Final = {
    # Every start reads these topics completely. Kafka never compacts the active segment, so segments are short.
    "segment.ms": str(60 * MINUTE),
    "min.cleanable.dirty.ratio": "0.1",
    # A tombstone must delete its record within a day, even if little of the topic is dirty.
    "max.compaction.lag.ms": str(DAY),
}
"""Kafka settings of compacted topics."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic.

    Attributes:
        name: name without the deployment's prefix.
        partitions: number of partitions of a new topic. An existing one keeps its own: with more, the next message of a
            key could overtake earlier ones in the old partition. ``nest topics grow`` adds some in order.
        retention: how long records are kept, milliseconds, or FOREVER.
        compacted: only the newest record of each key is kept, for at most the retention.
        consumed: a consumer group may consume it, so it has a dead-letter topic.
        resent: its writer sends its messages again from its inbox rows if Kafka has lost its topics, as for topics with
            consumers.
        append_time: records have the time at which Kafka appends them, not that of their sender.
        consumers: the services that consume it, each with its consumer group.
        readers: the processes that read it without a consumer group.
        writers: the processes that send messages to it.
    """

    name: str
    partitions: int
    retention: int
    compacted: bool = False
    consumed: bool = True
    append_time: bool = False
    resent: bool = False
    consumers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()

    @property
    def growable(self) -> bool:
        """Whether it may get more partitions.

        Readers without a consumer group read the partitions of their start, and in a compacted topic the newest record
        of a key would stay in its old partition.
        """
        return bool(self.consumers) and self.partitions > 1 and not (self.compacted or self.readers)

    @property
    def segment(self) -> int:
        """Longest time whose records are in one segment, milliseconds: how much longer than ``retention`` one stays."""
        return int(COMPACTED["segment.ms"]) if self.compacted else min(self.retention, SEGMENT)

    def settings(self, replication: int) -> dict[str, str]:
        """Return the topic's Kafka settings for a replication factor."""
        policy = "delete" if not self.compacted else "compact" if self.retention == FOREVER else "compact,delete"
        return {
            "cleanup.policy": policy,
            "retention.ms": str(self.retention),
            "min.insync.replicas": "2" if replication >= MIN_REPLICATION_FOR_TWO else "1",
            # A dead letter contains the largest possible record and its own headers.
            "max.message.bytes": str(2 * MEBIBYTE if self.name.endswith(".dead") else MEBIBYTE),
            **(COMPACTED if self.compacted else {"segment.ms": str(self.segment)}),
            **({"message.timestamp.type": "LogAppendTime"} if self.append_time else {}),
        }


SERVICES: Final = ("auth", "billing", "mailer", "news")
PROCESSES: Final = ("gateway", *SERVICES)
COMMAND_PARTITIONS: Final = 48
"""Partitions of new command topics: the most instances of a service that share its commands."""
EVENT_PARTITIONS: Final = 12
"""Partitions of new topics of events, which take less time than calls. Each of them costs every fetch some time."""
GROWTH: Final = Topic(
    "topic-growth", 1, DAY, compacted=True, consumed=False, append_time=True, readers=PROCESSES, writers=PROCESSES
)
"""Orders of ``nest topics grow`` to every process, and their confirmations."""
INSTANCES: Final = Topic(
    "instances", 1, 60 * MINUTE, compacted=True, consumed=False, append_time=True, writers=PROCESSES
)
"""Announcements of the running processes, which are the records' keys. Operators read them."""
TOPICS: Final = (
    # Calls come from the gateway alone. A service writes to the commands of another one only if it sends some.
    Topic("auth.commands", COMMAND_PARTITIONS, 7 * DAY, consumers=("auth",), writers=("gateway", "auth")),
    Topic(
        "billing.commands", COMMAND_PARTITIONS, 7 * DAY, consumers=("billing",), writers=("gateway", "auth", "billing")
    ),
    Topic(
        "mailer.commands",
        COMMAND_PARTITIONS,
        7 * DAY,
        consumers=("mailer",),
        writers=("gateway", "auth", "billing", "mailer"),
    ),
    Topic("news.commands", COMMAND_PARTITIONS, 7 * DAY, consumers=("news",), writers=("gateway", "auth", "news")),
    # Reports and orders of other processes to auth. Services can't write auth.commands, where a record may act for any
    # caller.
    Topic("auth.service-commands", COMMAND_PARTITIONS, 7 * DAY, consumers=("auth",), writers=PROCESSES),
    # Orders of services to each other to send expired messages again.
    Topic("republishing", 1, 7 * DAY, consumers=SERVICES, writers=SERVICES),
    Topic("auth.events", EVENT_PARTITIONS, 7 * DAY, consumers=("billing", "mailer"), writers=("auth",)),
    # Half of all events, and no service reads them. The collection keeps the entries.
    Topic("auth.audit", EVENT_PARTITIONS, DAY, consumed=False, writers=("auth",)),
    Topic("billing.events", EVENT_PARTITIONS, 7 * DAY, consumers=("auth", "mailer", "news"), writers=("billing",)),
    Topic("mailer.events", EVENT_PARTITIONS, 7 * DAY, writers=("mailer",)),
    Topic("news.events", EVENT_PARTITIONS, 7 * DAY, readers=("news",), writers=("news",)),
    # billing sends stored events again.
    Topic("stripe.webhooks", COMMAND_PARTITIONS, 7 * DAY, consumers=("billing",), writers=("gateway", "billing")),
    # Callers time out long before ten minutes.
    Topic("gateway.replies", 64, 10 * MINUTE, consumed=False, readers=("gateway",), writers=SERVICES),
    Topic("auth.keys", 1, FOREVER, compacted=True, consumed=False, readers=("gateway", "auth"), writers=("auth",)),
    Topic("auth.clients", 1, FOREVER, compacted=True, consumed=False, readers=("gateway", "news"), writers=("auth",)),
    # Twice the longest lifetime of an access token: a revocation must outlive the token.
    Topic(
        "auth.revocations",
        1,
        2 * DAY,
        compacted=True,
        consumed=False,
        resent=True,
        readers=("gateway",),
        writers=("auth",),
    ),
    # auth publishes the operators' orders to resume a partition.
    Topic(PAUSED_PARTITIONS, 1, FOREVER, compacted=True, consumed=False, readers=SERVICES, writers=SERVICES),
    INSTANCES,
    GROWTH,
)
"""All topics but those of dead letters. ``shared.bus.access`` derives the rights of each process from them."""


WRITERS: Final = {topic.name: topic.writers for topic in TOPICS}
"""The processes that may write to each topic."""
CONSUMERS: Final = {topic.name: topic.consumers for topic in TOPICS}
"""The services that consume each topic."""
GROWABLE: Final = tuple(topic.name for topic in TOPICS if topic.growable)


def dead_letter_topic(topic: str) -> str:
    """Return the name of a topic's dead-letter topic."""
    return f"{topic}.dead"


def declared(topics: Iterable[Topic] = TOPICS, *, max_partitions: int | None = None) -> tuple[Topic, ...]:
    """Return topics together with the dead-letter topics of those that are consumed.

    ``max_partitions`` bounds the partitions per topic, for a deployment on one small machine.
    """
    result = []
    for topic in topics:
        result.append(replace(topic, partitions=min(topic.partitions, max_partitions or topic.partitions)))
        if topic.consumed:
            # Compacted, so that the dead letters of an erased user can be deleted before their retention ends.
            result.append(Topic(dead_letter_topic(topic.name), 1, 30 * DAY, compacted=True, consumed=False))
    return tuple(result)


async def apply(
    kafka: KafkaConnection,
    *,
    prefix: str = "",
    replication: int = 1,
    max_partitions: int | None = None,
    topics: Iterable[Topic] = TOPICS,
) -> list[str]:
    """Create the missing topics and apply the settings of all; return the full names of the created ones.

    Args:
        kafka: the connection to Kafka.
        prefix: prefix of every topic name.
        replication: replication factor.
        max_partitions: as for ``declared``; existing topics keep their partitions.
        topics: the declared topics.

    Raises:
        KafkaError: Kafka can't be reached or rejected a request.
    """
    wanted = declared(topics, max_partitions=max_partitions)
    admin = AIOKafkaAdminClient(**kafka.options, request_timeout_ms=30_000)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [topic for topic in wanted if prefix + topic.name not in existing]
        if missing:
            await _create(admin, missing, prefix, replication)
        present = [topic for topic in wanted if prefix + topic.name in existing]
        if present:
            await admin.alter_configs(
                [
                    ConfigResource(ConfigResourceType.TOPIC, prefix + topic.name, topic.settings(replication))
                    for topic in present
                ]
            )
        await _wait_for_leaders(admin, [prefix + topic.name for topic in wanted])
        return [prefix + topic.name for topic in missing]
    finally:
        await admin.close()


async def check(
    kafka: KafkaConnection,
    *,
    prefix: str = "",
    replication: int = 1,
    max_partitions: int | None = None,
    topics: Iterable[Topic] = TOPICS,
) -> list[str]:
    """Return the differences between Kafka and the declaration, one sentence each; arguments, errors as ``apply``.

    A topic that may grow may have any number of partitions.
    """
    wanted = declared(topics, max_partitions=max_partitions)
    admin = AIOKafkaAdminClient(**kafka.options)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        names = [prefix + topic.name for topic in wanted if prefix + topic.name in existing]
        partitions = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics(names)}
        differences = [f"{prefix}{topic.name} is missing" for topic in wanted if prefix + topic.name not in existing]
        for topic in wanted:
            name = prefix + topic.name
            if name not in partitions:
                continue
            if partitions[name] != topic.partitions and not topic.growable:
                differences.append(f"{name} has {partitions[name]} partitions instead of {topic.partitions}")
            settings = await _settings(admin, name)
            differences.extend(
                f"{name}: {setting} is {settings.get(setting)} instead of {value}"
                for setting, value in topic.settings(replication).items()
                if settings.get(setting) != value
            )
        return differences
    finally:
        await admin.close()


async def cluster_id(kafka: KafkaConnection) -> str:
    """Return the ID of the cluster, which a copy of it does not share.

    Raises:
        KafkaError: Kafka can't be reached.
    """
    admin = AIOKafkaAdminClient(**kafka.options)
    try:
        await admin.start()
        found: str = (await admin.describe_cluster())["cluster_id"]
        return found
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
        # Two deployments of one release may apply the topics at the same time.
        if code and error is not TopicAlreadyExistsError:
            raise error(f"{name}: {rest[0] if rest else ''}")


async def _settings(admin: AIOKafkaAdminClient, name: str) -> dict[str, str]:
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    return {entry[0]: entry[1] for response in responses for resource in response.resources for entry in resource[4]}


async def _wait_for_leaders(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Wait until every partition has a leader; a new topic can't be written to before."""
    end = time.monotonic() + LEADER_SECONDS
    while time.monotonic() < end:
        topics = await admin.describe_topics(names)
        if all(
            topic["error_code"] == 0 and all(partition["leader"] >= 0 for partition in topic["partitions"])
            for topic in topics
        ):
            return
        await asyncio.sleep(0.1)
    raise KafkaError(f"the topics were created and have no leader after {LEADER_SECONDS:.0f} s")
