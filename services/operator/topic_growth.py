"""Growth of topics from the side of the command: gives topics more partitions while nothing is in them or sent to them.

``shared.bus.topic_growth`` describes the stages. The growth may be interrupted at any time: the processes continue by
themselves after the lease of the last order, and it can be started again.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import KafkaError

from services.operator.client import CommandError
from services.operator.doctor.instances import announcements
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.producer import Producer
from shared.bus.record_macs import RecordMacs
from shared.bus.topic_growth import LEASE_SECONDS, ORDER_KEY, Order, Stage
from shared.bus.topic_reader import TopicReader
from shared.bus.topics import GROWTH, INSTANCES
from shared.ids import new_message_id

RENEW_SECONDS: Final = 5.0
"""Interval at which the order is repeated, so that the processes keep to it."""
POLL_SECONDS: Final = 0.5
RUNNING_SECONDS: Final = 20.0
"""A process announces itself every five seconds; one that has not for so long has ended."""
REQUEST_SECONDS: Final = 10.0
"""Timeout of the request that adds the partitions; it starts only while the lease lasts much longer."""
KNOWN_SECONDS: Final = 3.0
"""After so long every broker knows the partitions that a lost response does not report."""
Report = Callable[[str], None]


@dataclass(slots=True)
class Plan:
    """What a growth will do.

    Attributes:
        present: partitions now, by topic without prefix.
        wanted: partitions afterwards, of the topics that have fewer.
        processes: the running processes, ``service instance``.
    """

    present: dict[str, int]
    wanted: dict[str, int]
    processes: list[str]


@dataclass(slots=True)
class _Lease:
    """When the processes stop to obey the last order, monotonic seconds."""

    ends: float = 0.0


@dataclass
class Growth:
    """One growth of topics; use it in this order: ``start``, ``plan``, ``grow``, ``stop``.

    Args:
        kafka: the connection to Kafka.
        macs: authenticates the orders.
        prefix: prefix of topics and consumer groups.
        consumers: the services that consume each topic, without prefix.
        timeout: seconds in which the processes must have obeyed and the consumer groups have handled everything.
        report: receives the progress, one line each.
    """

    kafka: KafkaConnection
    macs: RecordMacs
    prefix: str
    consumers: Mapping[str, Sequence[str]]
    timeout: float
    report: Report = lambda _: None
    _id: str = field(default_factory=new_message_id)
    _confirmed: dict[str, tuple[str, str]] = field(default_factory=dict)
    _lease: _Lease = field(default_factory=_Lease)
    _adding: bool = False

    async def start(self) -> None:
        """Connect; raise KafkaError or BusDown if Kafka can't be reached or the topics are missing."""
        self._admin = AIOKafkaAdminClient(**self.kafka.options, request_timeout_ms=int(REQUEST_SECONDS * 1000))
        self._consumer = AIOKafkaConsumer(**self.kafka.options, group_id=None, enable_auto_commit=False)
        self._producer = Producer(self.kafka, macs=self.macs, prefix=self.prefix, client_id="nest-growth")
        self._reader = TopicReader(self.kafka, macs=self.macs, from_end=True, client_id="nest-growth")
        await self._admin.start()
        await self._consumer.start()
        await self._producer.start()
        await self._reader.follow({self.prefix + GROWTH.name: self._receive})

    async def stop(self) -> None:
        """Disconnect."""
        for stop in (self._reader.stop, self._producer.stop, self._consumer.stop, self._admin.close):
            with suppress(KafkaError, AttributeError):
                await stop()

    async def plan(self, topics: Sequence[str], partitions: int) -> Plan:
        """Return what a growth of these topics, without prefix, to this number of partitions would do.

        Raises:
            CommandError: a topic is missing or has more partitions.
        """
        present = await self._partitions(topics)
        if larger := [f"{topic} has {number}" for topic, number in present.items() if number > partitions]:
            raise CommandError(f"topics can't get fewer partitions: {', '.join(larger)}")
        wanted = {topic: partitions for topic, number in present.items() if number < partitions}
        return Plan(present, wanted, sorted(await self._processes()))

    async def grow(self, plan: Plan) -> None:
        """Grow the topics of a plan, and let the processes continue, also after a failure.

        Raises:
            CommandError: a process did not obey, or a group did not handle everything in time. Nothing was changed.
            KafkaError, BusDown: Kafka failed; the topics that have grown are consumed.
        """
        deadline = time.monotonic() + self.timeout
        before = {topic: plan.present[topic] for topic in plan.wanted}
        try:
            await self._order("refuse", before, deadline, "requests and timers pause")
            await self._during("refuse", before, self._drained(deadline), "every message is handled")
            await self._order("hold", before, deadline, f"nothing is sent to {', '.join(plan.wanted)}")
            await self._during("hold", before, self._drained(deadline), "still every message is handled")
            if self._lease.ends - time.monotonic() < REQUEST_SECONDS + RENEW_SECONDS:
                raise CommandError("this machine was too slow to hold the processes: run it again")
            self._adding = True
            await self._add_partitions(plan.wanted)
            self._adding = False
            for topic, number in plan.wanted.items():
                self.report(f"{topic} has {number} partitions")
            await self._order("grown", plan.wanted, deadline, "the new partitions are known")
            await self._during("grown", plan.wanted, self._assigned(plan.wanted, deadline), "they are consumed")
        finally:
            # Whatever happened: the numbers of now, which every process must know before it sends again.
            await asyncio.shield(self._continue(plan))

    async def _continue(self, plan: Plan) -> None:
        if self._adding:
            # It is unknown whether the request took effect; by now every broker knows it.
            await asyncio.sleep(KNOWN_SECONDS)
        now = await self._partitions(list(plan.wanted))
        await self._send(Order(self._id, "done", now))
        try:
            await self._obeyed("done", time.monotonic() + REQUEST_SECONDS)
        except CommandError as late:
            self.report(f"{late}; it continues by itself")
        else:
            self.report("all processes continue")

    async def _order(self, stage: Stage, partitions: Mapping[str, int], deadline: float, done: str) -> None:
        """Order a stage, and wait until every running process obeys."""
        await self._during(stage, partitions, self._obeyed(stage, deadline), done)

    async def _during(self, stage: Stage, partitions: Mapping[str, int], work: Awaitable[None], done: str) -> None:
        """Await something while the order is repeated."""
        order = Order(self._id, stage, dict(partitions))
        await self._send(order)
        renewing = asyncio.create_task(self._renew(order))
        try:
            await work
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
        self.report(done)

    async def _renew(self, order: Order) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self._send(order)

    async def _send(self, order: Order) -> None:
        began = time.monotonic()
        await self._producer.send_record(GROWTH.name, order.encode(), (), key=ORDER_KEY)
        self._lease.ends = began + LEASE_SECONDS

    def _receive(self, record: Any) -> None:
        if record.key != ORDER_KEY and record.value is not None:
            confirmation = json.loads(record.value)
            self._confirmed[record.key.decode()] = (confirmation["id"], confirmation["stage"])

    async def _obeyed(self, stage: Stage, deadline: float) -> None:
        """Wait until every running process has confirmed the stage."""
        while late := [each for each in await self._processes() if self._confirmed.get(each) != (self._id, stage)]:
            if time.monotonic() > deadline:
                raise CommandError(
                    f"not confirmed in time by {', '.join(late)}: check that it runs this release and can read"
                    f" {GROWTH.name}"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def _processes(self) -> set[str]:
        found = await announcements(self.kafka, self.prefix + INSTANCES.name, self.macs, within=RUNNING_SECONDS)
        return {f"{each['service']} {each['instance']}" for each in found}

    async def _drained(self, deadline: float) -> None:
        """Wait until every consumer group has handled all records, twice the same ones.

        A handled record's messages are on Kafka before its offset is committed. So nothing is left if no record was
        added between two looks at the ends, and all before the first look were handled at the second.
        """
        ends: dict[TopicPartition, int] = {}
        while True:
            before, ends = ends, await self._ends()
            waiting = await self._waiting(ends)
            if not waiting and before == ends:
                return
            if time.monotonic() > deadline:
                waits = ", ".join(waiting) or "new messages keep coming"
                raise CommandError(f"not everything was handled in time, nothing was changed: {waits}")
            await asyncio.sleep(POLL_SECONDS)

    async def _ends(self) -> dict[TopicPartition, int]:
        topics = await self._partitions([topic for topic, services in self.consumers.items() if services])
        partitions = [
            TopicPartition(self.prefix + topic, each) for topic, number in topics.items() for each in range(number)
        ]
        return dict(await self._consumer.end_offsets(partitions))

    async def _waiting(self, ends: Mapping[TopicPartition, int]) -> list[str]:
        """Return the groups with unhandled records, and the number of these."""
        beginnings = await self._consumer.beginning_offsets(list(ends))
        lags: dict[str, int] = {}
        for service in sorted({service for services in self.consumers.values() for service in services}):
            committed = await self._admin.list_consumer_group_offsets(self.prefix + service)
            for partition, end in ends.items():
                if service in self.consumers[partition.topic.removeprefix(self.prefix)]:
                    offset = committed[partition].offset if partition in committed else 0
                    lags[service] = lags.get(service, 0) + max(0, end - max(offset, beginnings[partition]))
        return [f"{lag} messages of {service}" for service, lag in lags.items() if lag]

    async def _add_partitions(self, wanted: Mapping[str, int]) -> None:
        await self._admin.create_partitions(
            {self.prefix + topic: NewPartitions(number) for topic, number in wanted.items()},
            timeout_ms=int(REQUEST_SECONDS * 1000),
        )
        # A broker may know them a moment later.
        async with asyncio.timeout(REQUEST_SECONDS):
            while True:
                if await self._partitions(list(wanted)) == dict(wanted):
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def _assigned(self, wanted: Mapping[str, int], deadline: float) -> None:
        """Wait until the groups consume every partition; a group without a member is left out."""
        while True:
            missing: list[str] = []
            for service in sorted({service for topic in wanted for service in self.consumers[topic]}):
                (response,) = await self._admin.describe_consumer_groups([self.prefix + service])
                (group,) = response.to_object()["groups"]
                assigned = {each for member in group["members"] for each in _assigned(member["member_assignment"])}
                topics = [topic for topic in wanted if service in self.consumers[topic]]
                needed = {(self.prefix + topic, each) for topic in topics for each in range(wanted[topic])}
                if group["members"] and not needed <= assigned:
                    missing.append(service)
            if not missing:
                return
            if time.monotonic() > deadline:
                raise CommandError(f"the new partitions are not consumed yet by {', '.join(missing)}: restart it")
            await asyncio.sleep(POLL_SECONDS)

    async def _partitions(self, topics: Sequence[str]) -> dict[str, int]:
        described = await self._admin.describe_topics([self.prefix + topic for topic in topics])
        found = {each["topic"].removeprefix(self.prefix): len(each["partitions"]) for each in described}
        if missing := [topic for topic in topics if not found.get(topic)]:
            raise CommandError(f"missing: {', '.join(missing)}; run nest topics apply")
        return {topic: found[topic] for topic in topics}


def _assigned(assignment: bytes) -> set[tuple[str, int]]:
    if not assignment:
        return set()
    decoded = ConsumerProtocolMemberAssignment.decode(assignment)
    return {(topic, partition) for topic, partitions in decoded.assignment for partition in partitions}
