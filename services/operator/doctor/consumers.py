"""Checks of the consumer groups: members, their partitions, lag, and offsets that stand still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import for_code

from services.operator.doctor.access import denial
from services.operator.doctor.findings import Finding, ok, problem, skipped, warning
from services.operator.doctor.kafka import OPERATOR, RETENTION, admin_client, hidden_topics
from shared.bus.consumer_lag import Lag, LagReader
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import CONSUMERS, SERVICES

LAG_WARNING: Final = 1_000
"""Records; a service handles them within seconds."""
AGE_PROBLEM: Final = RETENTION / 7
"""Age of an unread record: long before Kafka deletes it."""
STILL_SECONDS: Final = 10.0
"""A record that waits for so long, while its partition's offset stands still, is a problem if others arrive behind it:
callers wait no longer. A deployment has assigned its partitions after so long."""
STILL_AGE: Final = timedelta(minutes=1)
"""Age of a waiting record that is a problem although none arrives behind it."""
LOOK_SECONDS: Final = 1.0
"""Interval between two looks at a group; it commits its offsets every second."""
PARTITIONS_SHOWN: Final = 3
STABLE: Final = "Stable"
"""Kafka's name of the state in which every member has its partitions."""


@dataclass(frozen=True)
class Member:
    """A member of a consumer group: its address, and its partitions."""

    host: str
    partitions: frozenset[TopicPartition]


@dataclass(frozen=True)
class Look:
    """The state of a consumer group at one time.

    Attributes:
        state: Kafka's name of its state.
        members: its members.
        ends: the offset after the last record of each partition that it should consume.
        positions: its offset in each of them.
    """

    state: str
    members: tuple[Member, ...]
    ends: Mapping[TopicPartition, int]
    positions: Mapping[TopicPartition, int]

    @property
    def waiting(self) -> set[TopicPartition]:
        """The partitions with records that it has not handled."""
        return {each for each, end in self.ends.items() if end > self.positions[each]}

    @property
    def unassigned(self) -> set[TopicPartition]:
        """The partitions that no member has, once all are assigned."""
        assigned = {partition for member in self.members for partition in member.partitions}
        return set(self.ends) - assigned if self.state == STABLE else set()

    def still(self, first: Look) -> set[TopicPartition]:
        """Return the partitions whose record waited at the first look and waits now."""
        return {each for each in self.waiting & first.waiting if self.positions[each] == first.positions[each]}


async def check_consumers(
    kafka: KafkaConnection, prefix: str, *, still_seconds: float = STILL_SECONDS
) -> AsyncIterator[Finding]:
    """Check that every service runs and makes progress, its consumer lag, and whether records expire unread.

    Args:
        kafka: the connection to Kafka.
        prefix: prefix of topics and consumer groups.
        still_seconds: how long a waiting group is watched.
    """
    consumer = AIOKafkaConsumer(**kafka.options, group_id=None, enable_auto_commit=False)
    async with admin_client(kafka) as admin, LagReader(kafka) as reader:
        try:
            await consumer.start()
            groups = [_Group(admin, consumer, reader, prefix, service) for service in SERVICES]
            for findings in await asyncio.gather(*(each.check(still_seconds) for each in groups)):
                for finding in findings:
                    yield finding
        finally:
            await consumer.stop()


class _Group:
    """The consumer group of a service."""

    def __init__(
        self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, reader: LagReader, prefix: str, service: str
    ) -> None:
        self._admin = admin
        self._consumer = consumer
        self._reader = reader
        self._name = prefix + service
        self._service = service
        self._topics = [prefix + topic for topic, services in CONSUMERS.items() if service in services]
        self._hidden: list[str] = []
        self._partitions: list[TopicPartition] = []
        self._beginnings: dict[TopicPartition, int] = {}

    async def check(self, still_seconds: float) -> list[Finding]:
        """Return the findings about the group."""
        try:
            return await self._check(still_seconds)
        except Exception as failure:
            if (denied := denial(failure)) is None:
                raise
            return [skipped(f"{self._service} is not checked: {denied}", OPERATOR)]

    async def _check(self, still_seconds: float) -> list[Finding]:
        await self._find_partitions()
        first = last = await self._look()
        end = time.monotonic() + still_seconds
        while last.members and _suspicious(first, last) and time.monotonic() < end:
            await asyncio.sleep(min(LOOK_SECONDS, still_seconds))
            last = await self._look()
        lag = await self._reader.read(self._name)
        findings = [*self._expired(lag), *(self._stopped(first, last, lag, still_seconds) if last.members else ())]
        return [*findings, *self._lag(last, lag, stopped=bool(findings))]

    async def _find_partitions(self) -> None:
        """Look up the partitions of the topics that the group should consume; those that are missing have none."""
        described = await self._admin.describe_topics(self._topics)
        self._hidden = hidden_topics(described)
        self._partitions = [
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        ]
        self._beginnings = await self._consumer.beginning_offsets(self._partitions) if self._partitions else {}

    async def _look(self) -> Look:
        (response,) = await self._admin.describe_consumer_groups([self._name])
        (group,) = response.to_object()["groups"]
        if group["error_code"]:
            raise for_code(group["error_code"])(self._name)
        members = tuple(Member(each["client_host"], _assigned(each["member_assignment"])) for each in group["members"])
        committed = await self._admin.list_consumer_group_offsets(self._name)
        # The ends are read after the offsets, so that no offset is ahead of them.
        ends = await self._consumer.end_offsets(self._partitions) if self._partitions else {}
        positions = {
            each: max(committed[each].offset if each in committed else 0, self._beginnings[each])
            for each in self._partitions
        }
        return Look(group["state"], members, ends, positions)

    def _expired(self, lag: Lag) -> Iterable[Finding]:
        if lag.gaps:
            expired = sum(gap.count for gap in lag.gaps)
            topics = ", ".join(sorted({gap.partition.topic for gap in lag.gaps}))
            says = f"{expired} records of {topics} expired before {self._service} read them"
            do = f"start it: nest run {self._service}; it has their messages sent again where that is possible"
            yield problem(says, do)

    def _stopped(self, first: Look, last: Look, lag: Lag, seconds: float) -> Iterable[Finding]:
        """Report members and partitions that make no progress; both looks are ``seconds`` apart if something may."""
        service = self._service
        if last.state != STABLE:
            says = f"the partitions of {service} have been reassigned for {seconds:g} s ({last.state})"
            yield warning(
                says, "run nest doctor again after a deployment; else an instance joins repeatedly: read its log"
            )
        if unassigned := last.unassigned:
            says = f"no instance of {service} has {_shown(unassigned)}: their records wait"
            yield problem(says, f"restart {service}: every instance must be of a release that consumes them")
        idle = sum(not member.partitions for member in last.members) if last.state == STABLE else 0
        if idle and not unassigned:
            says = f"{idle} of {len(last.members)} instances of {service} have no partition"
            yield warning(says, f"there are more instances than partitions; run {len(last.members) - idle} at most")
        grown = {each for each in last.still(first) if last.ends[each] > first.ends[each]}
        still = last.still(first) if lag.seconds(time.time()) >= STILL_AGE.total_seconds() else grown
        # Those without a member are reported already.
        if still := still - unassigned:
            arrived = sum(last.ends[each] - first.ends[each] for each in still)
            hosts = {each.host.lstrip("/") for each in last.members if each.partitions & still}
            says = (
                f"{service} has stopped: its offset stands still for {seconds:g} s in {_shown(still)},"
                f" and {arrived} records arrived meanwhile"
            )
            yield problem(says, f"read the log of {' and '.join(sorted(hosts)) or service}, then restart that instance")

    def _lag(self, look: Look, lag: Lag, *, stopped: bool) -> Iterable[Finding]:
        service, age = self._service, timedelta(seconds=round(lag.seconds(time.time())))
        behind = f"{lag.records} records behind" + (f", the oldest for {age}" if lag.records else "")
        if self._hidden:
            seen = len(self._topics) - len(self._hidden)
            behind += f" in the {seen} of {len(self._topics)} topics that the Kafka user may see"
        if not look.members:
            yield problem(f"no instance of {service} runs; it is {behind}", f"start it: nest run {service}")
        elif age > AGE_PROBLEM:
            yield problem(f"{service} is {behind}", f"read its log; records are deleted after {RETENTION.days} days")
        elif lag.records > LAG_WARNING:
            yield warning(f"{service} is {behind}", "read its log; start another instance if it is busy")
        elif not stopped:
            yield ok(f"{service}: {len(look.members)} running, {behind}")


def _suspicious(first: Look, last: Look) -> bool:
    """Whether a further look can tell more: something waits, or a member has joined or left just now."""
    return last.state != STABLE or bool(last.unassigned or last.still(first))


def _assigned(assignment: bytes) -> frozenset[TopicPartition]:
    """Return the partitions of a member; none while the group is being assigned."""
    if not assignment:
        return frozenset()
    return frozenset(ConsumerProtocolMemberAssignment.decode(assignment).partitions())


def _shown(partitions: Iterable[TopicPartition]) -> str:
    """Return the names of partitions, the first few of many."""
    ordered = sorted(partitions)
    names = ", ".join(f"partition {each.partition} of {each.topic}" for each in ordered[:PARTITIONS_SHOWN])
    more = len(ordered) - PARTITIONS_SHOWN
    return f"{names} and {more} more" if more > 0 else names
