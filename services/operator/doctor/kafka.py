"""Checks of Kafka: brokers, topics, consumers and dead letters."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.operator.doctor.findings import Finding, ok, problem, warning
from shared.bus.consumer_lag import LagReader
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import SERVICES, TOPICS, check
from shared.dead_letters.queue import DeadLetterQueue
from shared.mongo import Database
from shared.settings import SettingsError

LAG_WARNING: Final = 1_000
"""Records; a service handles them within seconds."""
RETENTION: Final = timedelta(milliseconds=min(topic.retention for topic in TOPICS if topic.consumed))
AGE_PROBLEM: Final = RETENTION / 7
"""Age of an unread record: long before Kafka deletes it."""
LETTERS_READ: Final = 500
RETENTION_MARGIN: Final = timedelta(days=1)
"""How much longer inbox rows must be kept than records, for replays and clock differences."""


async def report_invalid_settings(error: SettingsError) -> AsyncIterator[Finding]:
    """Report settings with which no command connects to Kafka."""
    for line in str(error).splitlines():
        yield problem(line, "set the variable; docs/operations.md lists its values")


async def check_topics(
    kafka: KafkaConnection, prefix: str, *, replication: int | None, inbox_retention: timedelta | None
) -> AsyncIterator[Finding]:
    """Check that the brokers respond, and compare the topics with their declaration and with the inboxes.

    Args:
        kafka: the connection to Kafka.
        prefix: prefix of the topic names.
        replication: required replicas of each topic; None for one per broker, 3 at most.
        inbox_retention: the shortest inbox retention of a service, if known.
    """
    await kafka.check()
    async with _admin(kafka) as admin:
        cluster = await admin.describe_cluster()
        brokers = len(cluster["brokers"])
        yield ok(f"{brokers} broker{'s' if brokers > 1 else ''} at {kafka.bootstrap}", area="kafka")
        if brokers < 3:  # noqa: PLR2004 -- with fewer, one broker acknowledges a write alone
            yield warning(
                "a power cut may lose acknowledged records", "run three brokers with --replication 3", area="kafka"
            )
        required = min(3, brokers) if replication is None else replication
        differences = await check(kafka, prefix=prefix, replication=required)
        # The embedded Kafka has fewer partitions than declared.
        differences = [line for line in differences if "partitions instead" not in line]
        for line in differences:
            yield problem(line, f"nest topics apply --bootstrap {kafka.bootstrap} --replication {required}")
        topics = await admin.describe_topics([prefix + topic.name for topic in TOPICS])
        unhealthy = [line for topic in topics for line in _unhealthy_partitions(topic, required)]
        for line in unhealthy:
            yield problem(line, "check that every broker runs; reassign a topic to add replicas")
        too_long = [] if inbox_retention is None else await _retention_findings(admin, prefix, inbox_retention)
        for finding in too_long:
            yield finding
    if not (differences or unhealthy or too_long):
        yield ok("all have their configuration and replicas, and shorter retention than the inboxes")


def _unhealthy_partitions(topic: Mapping[str, Any], replication: int) -> list[str]:
    partitions = topic["partitions"]
    states = (
        ([each for each in partitions if each["leader"] < 0], "have no leader and cannot be written"),
        (
            [each for each in partitions if len(each["replicas"]) < replication],
            f"have fewer than {replication} replicas",
        ),
        ([each for each in partitions if len(each["isr"]) < len(each["replicas"])], "have replicas out of sync"),
    )
    return [f"{topic['topic']}: {len(affected)} partitions {state}" for affected, state in states if affected]


async def _retention_findings(admin: AIOKafkaAdminClient, prefix: str, inbox_retention: timedelta) -> list[Finding]:
    """Report topics that keep records too long for the inboxes to recognize their repetitions."""
    findings = []
    for topic in TOPICS:
        name = prefix + topic.name
        milliseconds = await _retention(admin, name) if topic.consumed else None
        if milliseconds is None:
            continue
        retention = timedelta(milliseconds=milliseconds) if milliseconds >= 0 else timedelta.max
        if retention <= inbox_retention - RETENTION_MARGIN:
            continue
        says = (
            f"{name} keeps records {'for ever' if milliseconds < 0 else f'for {retention}'},"
            f" and NEST_INBOX_RETENTION is {inbox_retention}"
        )
        do = "set NEST_INBOX_RETENTION to a day more than the topics' retention, or run nest topics apply"
        if retention > inbox_retention:
            findings.append(problem(f"{says}: records that wait longer become dead letters (too_old)", do))
        else:
            findings.append(warning(f"{says}, which is less than a day more", do))
    return findings


async def _retention(admin: AIOKafkaAdminClient, name: str) -> int | None:
    """Return a topic's retention in milliseconds, negative for no limit; None if the topic does not exist."""
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    values = {entry[0]: entry[1] for answer in answers for resource in answer.resources for entry in resource[4]}
    return int(values["retention.ms"]) if "retention.ms" in values else None


async def check_consumers(kafka: KafkaConnection, prefix: str) -> AsyncIterator[Finding]:
    """Check that every service runs, its consumer lag, and whether records expire before it reads them."""
    async with _admin(kafka) as admin, LagReader(kafka) as reader:
        for findings in await asyncio.gather(*(_check_group(admin, reader, prefix, each) for each in SERVICES)):
            for finding in findings:
                yield finding


async def _check_group(admin: AIOKafkaAdminClient, reader: LagReader, prefix: str, service: str) -> list[Finding]:
    members = await _member_count(admin, prefix + service)
    lag = await reader.read(prefix + service)
    age = timedelta(seconds=round(lag.seconds(time.time())))
    behind = f"{lag.records} records behind" + (f", the oldest for {age}" if lag.records else "")
    findings = []
    if lag.gaps:
        expired = sum(gap.count for gap in lag.gaps)
        topics = ", ".join(sorted({gap.partition.topic for gap in lag.gaps}))
        says = f"{expired} records of {topics} expired before {service} read them"
        do = f"start it: nest run {service}; it has their messages sent again where that is possible"
        findings.append(problem(says, do))
    if not members:
        findings.append(problem(f"no instance of {service} runs; it is {behind}", f"start it: nest run {service}"))
    elif age > AGE_PROBLEM:
        do = f"read its log; records are deleted after {RETENTION.days} days"
        findings.append(problem(f"{service} is {behind}", do))
    elif lag.records > LAG_WARNING:
        do = "read its log; start another instance if it is busy"
        findings.append(warning(f"{service} is {behind}", do))
    return findings or [ok(f"{service}: {members} running, {behind}")]


async def check_dead_letters(kafka: KafkaConnection, prefix: str, auth: Database | None) -> AsyncIterator[Finding]:
    """Count the dead letters that were neither replayed nor removed."""
    queue = DeadLetterQueue(kafka, prefix=prefix)
    page = await queue.newest(lambda _: True, topic=None, limit=LETTERS_READ, cursor=None)
    waiting = page.letters
    if auth is not None:
        matching = {"_id": {"$in": [letter.dedup_key for letter in page.letters]}}
        processed = [
            row["_id"] for name in ("replays", "removed_letters") for row in await auth[name].find(matching).to_list()
        ]
        waiting = [letter for letter in page.letters if letter.dedup_key not in processed]
    if not waiting:
        yield ok("none")
        return
    counts = Counter(f"{queue.service(letter)} {letter.reason}" for letter in waiting)
    summary = ", ".join(f"{count} {group}" for group, count in counts.most_common())
    at_least = "at least " if page.next_cursor else ""
    yield warning(f"{at_least}{len(waiting)} not replayed: {summary}", "nest dead list; then nest dead replay")


def _admin(kafka: KafkaConnection) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**kafka.options, request_timeout_ms=8_000)
    return _started(admin, admin.close)


@asynccontextmanager
async def _started(client: Any, stop: Callable[[], Awaitable[None]]) -> AsyncIterator[Any]:
    try:
        await client.start()
        yield client
    finally:
        await stop()


async def _member_count(admin: AIOKafkaAdminClient, group: str) -> int:
    answers: list[Any] = await admin.describe_consumer_groups([group])
    # From version 3 of the response the members are not the last field.
    return sum(len(each[-1] if isinstance(each[-1], list) else each[5]) for answer in answers for each in answer.groups)
