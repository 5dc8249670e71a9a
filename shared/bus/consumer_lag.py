"""Consumer lag of the services, read from Kafka, also while a service is away."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, for_code

from shared.bus.background_task import BackgroundTask
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.offset_gaps import OffsetGap, find_gaps, last_read_of
from shared.metrics import GROUP_LAG, GROUP_OLDEST, LAG, LAG_SECONDS, UNREAD_EXPIRED
from shared.telemetry import log

READ_SECONDS: Final = 10.0
"""Timeout of reading the lag of one group."""
INTERVAL_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 5.0
"""Pause after a failure."""
START_SECONDS: Final = 15.0
"""How long a Kafka that has just started may have no group coordinators."""
START_PAUSE_SECONDS: Final = 1.0
"""Pause between two attempts meanwhile."""
_MEMBER_SUFFIX: Final = re.compile(r"-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
"""Random part of a member's ID, which Kafka appends to its instance name (KIP-345)."""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """Lag of a consumer group in one partition: ``oldest`` as in ``Lag``, ``end`` the offset after its last record."""

    records: int
    oldest: int | None
    end: int = 0


@dataclass(frozen=True, slots=True)
class Lag:
    """Lag of a consumer group.

    Attributes:
        records: number of records that it has not handled yet.
        oldest: timestamp of the oldest of them, Unix milliseconds; None if there is none.
        handled: sum of the committed offsets, which grows by one with each handled record.
        gaps: records that expired unread and that the group does not know of yet, because it is away.
        partitions: the lag in each partition, also in those without lag.
    """

    records: int
    oldest: int | None
    handled: int
    gaps: tuple[OffsetGap, ...]
    partitions: Mapping[TopicPartition, PartitionLag] = field(default_factory=dict)

    def seconds(self, now: float) -> float:
        """Age of the oldest record at a Unix time; 0 without lag."""
        return 0.0 if self.oldest is None else max(0.0, now - self.oldest / 1000)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a consumer group: its instance name, the address of its connection, and its partitions' number."""

    name: str
    host: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a consumer group, and Kafka's name of the group's state: ``Stable`` if all have partitions."""

    state: str
    members: tuple[Member, ...]


def _assigned(assignment: bytes) -> int:
    """Number of partitions in a member's assignment; it is empty during a rebalance."""
    if not assignment:
        return 0
    return len(ConsumerProtocolMemberAssignment.decode(assignment).partitions())


class LagReader:
    """Reads the lag of consumer groups, as an async context manager.

    Args:
        kafka: the connection to Kafka.
    """

    def __init__(self, kafka: KafkaConnection) -> None:
        self._admin = AIOKafkaAdminClient(**kafka.options, request_timeout_ms=int(READ_SECONDS * 1000))
        self._consumer = AIOKafkaConsumer(**kafka.options, group_id=None, enable_auto_commit=False)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            KafkaError: Kafka can't be reached.
        """
        try:
            await self._admin.start()
            await self._consumer.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._consumer.stop()
        await self._admin.close()

    async def read(self, group: str) -> Lag:
        """Return the lag of a group in the topics of which it has handled a record.

        Raises:
            KafkaError, TimeoutError: Kafka did not answer in time.
        """
        async with asyncio.timeout(READ_SECONDS):
            committed = await self._admin.list_consumer_group_offsets(group)
            topics = {partition.topic for partition, found in committed.items() if found.offset >= 0}
            partitions = [
                TopicPartition(topic["topic"], partition["partition"])
                for topic in (await self._admin.describe_topics(sorted(topics)) if topics else [])
                for partition in topic["partitions"]
            ]
            if not partitions:
                return Lag(0, None, 0, ())
            beginnings = await self._consumer.beginning_offsets(partitions)
            ends = await self._consumer.end_offsets(partitions)
            offsets = {each: max(committed[each].offset, 0) if each in committed else 0 for each in partitions}
            records = {each: max(ends[each] - max(offsets[each], beginnings[each]), 0) for each in partitions}
            oldest = await self._oldest(
                {
                    each: last_read_of(committed.get(each))
                    for each in partitions
                    # Commits of an older version do not state what was read last.
                    if records[each] and (not offsets[each] or last_read_of(committed.get(each)))
                }
            )
            return Lag(
                records=sum(records.values()),
                oldest=min(oldest.values(), default=None),
                handled=sum(offsets.values()),
                gaps=tuple(find_gaps(partitions, committed, beginnings)),
                partitions={each: PartitionLag(records[each], oldest.get(each), ends[each]) for each in partitions},
            )

    async def members(self, group: str) -> Members:
        """Return the members of a group.

        Raises:
            KafkaError, TimeoutError: Kafka did not answer in time.
        """
        async with asyncio.timeout(READ_SECONDS):
            (response,) = await self._admin.describe_consumer_groups([group])
        (described,) = response.to_object()["groups"]
        if described["error_code"]:
            raise for_code(described["error_code"])(group)
        return Members(
            described["state"],
            tuple(
                Member(
                    _MEMBER_SUFFIX.sub("", each["member_id"]),
                    each["client_host"].lstrip("/"),
                    _assigned(each["member_assignment"]),
                )
                for each in described["members"]
            ),
        )

    async def _oldest(self, last_read: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Timestamps of the oldest records after those that were read last."""
        if not last_read:
            return {}
        after = {each: timestamp + 1 for each, timestamp in last_read.items()}
        found = await self._consumer.offsets_for_times(after)
        # A record may have the same timestamp as the one read last. Then none is found: the record has just arrived.
        now = int(time.time() * 1000)
        return {each: now if (there := found.get(each)) is None else there.timestamp for each in last_read}


class LagMonitor(BackgroundTask):
    """Measures the lag of services regularly.

    Args:
        kafka: the connection to Kafka.
        prefix: prefix of topics and consumer groups.
        services: whose lag is measured.
        seconds: interval between two measurements.

    Attributes:
        lags: the last measurement of each service; those of an interval that failed are missing.
    """

    def __init__(
        self, kafka: KafkaConnection, *, prefix: str, services: Iterable[str], seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._kafka = kafka
        self._prefix = prefix
        self._services: Sequence[str] = tuple(services)
        self._seconds = seconds
        self.lags: dict[str, Lag] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Measure while the context is entered."""
        self.start()
        try:
            yield
        finally:
            await self.stop()

    def measured(self, service: str, lag: Lag) -> None:
        """Take a measurement."""
        self.lags[service] = lag

    async def _measure(self, reader: LagReader, service: str) -> None:
        self.measured(service, await reader.read(self._prefix + service))

    async def _pause(self) -> None:
        """Wait between two measurements of all services."""
        await asyncio.sleep(self._seconds)

    async def _run(self) -> None:
        started = time.monotonic()
        while True:
            pause = max(self._seconds, RETRY_SECONDS)
            try:
                async with LagReader(self._kafka) as reader:
                    while True:
                        for service in self._services:
                            await self._measure(reader, service)
                        await self._pause()
            except (KafkaError, TimeoutError) as failure:
                self.lags.clear()
                starting = time.monotonic() - started < START_SECONDS
                if starting and isinstance(failure, GroupCoordinatorNotAvailableError):
                    pause = START_PAUSE_SECONDS
                else:
                    log.warning("consumer lag not measured", error=type(failure).__name__)
            except Exception:  # noqa: BLE001 -- the measurement must not end unnoticed
                self.lags.clear()
                log.exception("consumer lag not measured")
            await asyncio.sleep(pause)


class LagExporter(LagMonitor):
    """Exports the lag of all services as metrics."""

    def measured(self, service: str, lag: Lag) -> None:
        """Set the metrics of a service."""
        super().measured(service, lag)
        LAG.labels(service).set(lag.records)
        LAG_SECONDS.labels(service).set(lag.seconds(time.time()))
        UNREAD_EXPIRED.labels(service).set(sum(gap.count for gap in lag.gaps))
        for (topic, partition), each in lag.partitions.items():
            labels = (service, self._prefix + service, topic.removeprefix(self._prefix), partition)
            GROUP_LAG.labels(*labels).set(each.records)
            GROUP_OLDEST.labels(*labels).set(0 if each.oldest is None else each.oldest / 1000)
