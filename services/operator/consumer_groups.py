"""The consumer group of one service, for commands that read or rewind its offsets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata

from services.operator.client import CommandError
from services.operator.kafka import connection
from services.operator.offsets import Plan, Saved
from shared.bus.kafka_connection import describe
from shared.bus.topics import TOPICS

POLL_MILLISECONDS: Final = 500
UNUSED: Final = ("Empty", "Dead")
"""States of a group without members."""


class ConsumerGroup:
    """The consumer group of a service.

    Args:
        admin: a started client.
        consumer: a started consumer of the group, which has not joined it.
        service: the service.
        prefix: prefix of topics and groups.
    """

    def __init__(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, service: str, prefix: str) -> None:
        self._admin = admin
        self._consumer = consumer
        self._service = service
        self._prefix = prefix
        self.name = prefix + service

    async def committed(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return the committed offsets."""
        found = await self._admin.list_consumer_group_offsets(self.name)
        return {partition: each for partition, each in found.items() if each.offset >= 0}

    async def plan_to_offsets(self, saved: Saved) -> list[Plan]:
        """Plan the rewind to saved offsets; a partition without one is read from its beginning.

        Raises:
            CommandError: the group has members, or the topics are not those of the saved offsets.
        """
        targets = {}
        for partition in await self._partitions():
            key = f"{partition.topic.removeprefix(self._prefix)}/{partition.partition}"
            targets[partition] = saved.get(key, (0, ""))
        ends = await self._consumer.end_offsets(list(targets))
        for partition, (offset, _) in targets.items():
            if offset > ends[partition]:
                raise CommandError(
                    f"{partition.topic} ends at offset {ends[partition]}, and the backup's is {offset}: this Kafka is"
                    " not the one of the backup. Don't rewind; start the services"
                )
        return await self._plans(targets)

    async def plan_to_time(self, time: datetime) -> list[Plan]:
        """Plan the rewind to the first records at or after a time; raise CommandError if the group has members."""
        milliseconds = int(time.timestamp() * 1000)
        partitions = await self._partitions()
        found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds))
        ends = await self._consumer.end_offsets(partitions)
        first = {each: found.get(each) for each in partitions}
        return await self._plans(
            {each: (ends[each] if there is None else there.offset, str(milliseconds)) for each, there in first.items()}
        )

    async def records_since(self, topic: str, saved: Saved) -> list[ConsumerRecord]:
        """Return the records of a topic, named without prefix, since saved offsets; nothing is committed."""
        partitions = [each for each in await self._partitions() if each.topic == self._prefix + topic]
        self._consumer.assign(partitions)
        beginnings, ends = (
            await self._consumer.beginning_offsets(partitions),
            await self._consumer.end_offsets(partitions),
        )
        for each in partitions:
            offset, _ = saved.get(f"{topic}/{each.partition}", (0, ""))
            self._consumer.seek(each, min(max(offset, beginnings[each]), ends[each]))
        found: list[ConsumerRecord] = []
        while any([await self._consumer.position(each) < ends[each] for each in partitions]):
            for records in (await self._consumer.getmany(timeout_ms=POLL_MILLISECONDS)).values():
                found += records
        return found

    async def commit(self, plans: list[Plan]) -> None:
        """Commit the offsets of plans.

        Raises:
            CommandError: the group has members.
        """
        await self._require_no_members()
        self._consumer.assign([each.partition for each in plans])
        await self._consumer.commit({each.partition: (each.target, each.metadata) for each in plans})

    async def _plans(self, targets: dict[TopicPartition, tuple[int, str]]) -> list[Plan]:
        await self._require_no_members()
        committed = await self.committed()
        beginnings = await self._consumer.beginning_offsets(list(targets))
        return [
            Plan(
                service=self._service,
                group=self.name,
                partition=partition,
                committed=committed[partition].offset if partition in committed else None,
                target=target,
                metadata=metadata,
                beginning=beginnings[partition],
            )
            for partition, (target, metadata) in targets.items()
        ]

    async def _partitions(self) -> list[TopicPartition]:
        names = [self._prefix + topic.name for topic in TOPICS if self._service in topic.consumers]
        topics = await self._admin.describe_topics(names)
        if missing := [topic["topic"] for topic in topics if topic["error_code"]]:
            raise CommandError(f"{missing[0]} is missing: run nest topics apply")
        return [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in topics
            for partition in sorted(topic["partitions"], key=lambda each: int(each["partition"]))
        ]

    async def _require_no_members(self) -> None:
        for response in await self._admin.describe_consumer_groups([self.name]):
            for _, _, state, _, _, members, *_ in response.groups:
                if state not in UNUSED:
                    raise CommandError(
                        f"{len(members)} instances of {self._service} run or have just been killed: stop all services,"
                        " wait ten seconds, and run this again"
                    )


@asynccontextmanager
async def opened_group(bootstrap: str, service: str, prefix: str) -> AsyncIterator[ConsumerGroup]:
    """Connect with the credentials of a service, which may commit the offsets of its group.

    Raises:
        CommandError: a setting is invalid, or Kafka can't be reached or refuses a request.
    """
    kafka = connection(bootstrap, process=service)
    admin = AIOKafkaAdminClient(**kafka.options, request_timeout_ms=30_000)
    consumer = AIOKafkaConsumer(**kafka.options, group_id=prefix + service, enable_auto_commit=False)
    try:
        await admin.start()
        await consumer.start()
        yield ConsumerGroup(admin, consumer, service, prefix)
    except KafkaError as failure:
        raise CommandError(f"Kafka at {bootstrap} failed ({describe(failure)})") from None
    finally:
        await consumer.stop()
        await admin.close()
