"""Checks of what processes announce on Kafka: their clocks, and the partitions that they have paused."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from services.operator.doctor.findings import Finding, ok, problem, skipped, warning
from services.operator.doctor.kafka import admin_client
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.paused_partitions import PausedPartitions
from shared.bus.record_macs import RecordMacs
from shared.bus.topics import INSTANCES
from shared.clock_check import KAFKA, MAX_SECONDS, WARNING_SECONDS
from shared.messages.auth.partitions import PAUSED_PARTITIONS

RUNNING_SECONDS: Final = 60.0
"""A process that has not announced itself for so long has ended."""
READ_MILLISECONDS: Final = 2_000


async def check_clocks(kafka: KafkaConnection, prefix: str, macs: RecordMacs | None) -> AsyncIterator[Finding]:
    """Compare the clock of every running process with those of MongoDB and Kafka.

    Announcements without a valid MAC are ignored; without the sealing keys nothing is checked.
    """
    if macs is None:
        yield skipped(
            "the clocks of the processes are not compared: NEST_SEALING_KEYS is not set",
            "set NEST_SEALING_KEYS, with which the announcements are checked",
        )
        return
    if (hidden := await _unreadable(kafka, prefix + INSTANCES.name)) is not None:
        yield skipped(f"the clocks of the processes are not compared: {hidden.says}", hidden.do)
        return
    running = await announcements(kafka, prefix + INSTANCES.name, macs)
    if not running:
        yield warning(
            "no process has announced itself within a minute",
            "start the services; if they run, compare this machine's clock with theirs",
        )
        return
    differing = [finding for each in running for finding in _differences(each)]
    for finding in differing:
        yield finding
    if not differing:
        yield ok(f"those of {len(running)} processes agree with MongoDB's and Kafka's")


async def check_paused_partitions(
    kafka: KafkaConnection, prefix: str, macs: RecordMacs | None
) -> AsyncIterator[Finding]:
    """Name the partitions that services have paused, and why. Nothing is checked without the sealing keys."""
    if macs is None:
        yield skipped(
            "paused partitions are not known: NEST_SEALING_KEYS is not set",
            "set NEST_SEALING_KEYS, with which the announcements are checked",
        )
        return
    if (hidden := await _unreadable(kafka, prefix + PAUSED_PARTITIONS)) is not None:
        yield skipped(f"paused partitions are not known: {hidden.says}", hidden.do)
        return
    paused = PausedPartitions()
    async for record in _records(kafka, prefix + PAUSED_PARTITIONS, PAUSED_PARTITIONS, macs):
        paused.apply(record)
    for each in paused.all():
        says = f"{each.id} is paused since {each.since:%Y-%m-%d %H:%M:%S} UTC by {each.instance}: {each.reason}"
        waits = "" if each.offset is None else f"; its records from offset {each.offset} on wait"
        yield problem(says + waits, f"see nest dead list; mend the cause, then nest partitions resume {each.id}")
    if not paused.all():
        yield ok("no partition is paused")


def _differences(announcement: Mapping[str, Any]) -> Iterable[Finding]:
    owner = f"the clock of {announcement['service']} {announcement['instance']}"
    for reference, skew in announcement["skew"].items():
        if abs(skew) < WARNING_SECONDS:
            continue
        says = f"{owner} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {reference}'s"
        if abs(skew) < MAX_SECONDS:
            yield warning(says, "synchronize it by NTP")
        elif announcement["stopped"]:
            yield problem(f"{says}, so it takes no messages", "synchronize it by NTP")
        else:
            # It agrees with another reference.
            yield problem(says, f"synchronize the clock of {reference} by NTP")


async def announcements(
    kafka: KafkaConnection, topic: str, macs: RecordMacs, *, within: float = RUNNING_SECONDS
) -> list[dict[str, Any]]:
    """Return the newest announcement of each running process, sorted by service and instance.

    A process runs if it has announced itself ``within`` so many seconds.
    """
    newest: dict[bytes, tuple[int, dict[str, Any]]] = {}
    async for record in _records(kafka, topic, INSTANCES.name, macs):
        newest[record.key] = (record.timestamp, _parsed(record))
    oldest = (time.time() - within) * 1000
    running = [announcement for at, announcement in newest.values() if at >= oldest]
    return sorted(running, key=lambda each: (each["service"], each["instance"]))


async def _unreadable(kafka: KafkaConnection, topic: str) -> Finding | None:
    """Return why a topic can't be read, and what to do; None if it can."""
    async with admin_client(kafka) as admin:
        (described,) = await admin.describe_topics([topic])
    if described["error_code"] == UnknownTopicOrPartitionError.errno:
        return skipped(f"{topic} is missing", "nest topics apply")
    if described["error_code"] == TopicAuthorizationFailedError.errno:
        return skipped(f"this user of Kafka may not read {topic}", "run it as operator")
    return None


async def _records(kafka: KafkaConnection, topic: str, name: str, macs: RecordMacs) -> AsyncIterator[Any]:
    """Read all authentic records of a topic with one partition; ``name`` is that without prefix."""
    consumer = AIOKafkaConsumer(**kafka.options, group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            for record in (await consumer.getmany(timeout_ms=READ_MILLISECONDS)).get(partition, []):
                if macs.problem(name, record) is None:
                    yield record
    finally:
        await consumer.stop()


def _parsed(record: Any) -> dict[str, Any]:
    """Return an announcement with the skew that the record's own times show, if that is larger."""
    announcement: dict[str, Any] = json.loads(record.value)
    # The record was on its way for a moment, so a clock that is behind by less than that seems to be ahead.
    ahead = (announcement["time"] - record.timestamp) / 1000
    announcement["skew"][KAFKA] = max(ahead, announcement["skew"].get(KAFKA, 0.0), key=abs)
    return announcement
