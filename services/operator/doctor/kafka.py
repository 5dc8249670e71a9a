"""Checks of Kafka: brokers, topics, consumers and dead letters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.operator.doctor.findings import Finding, ok, problem, warning
from shared.bus.topics import SERVICES, TOPICS, check
from shared.dead_letters.queue import DeadLetterQueue
from shared.mongo import Database

LAG_WARNING: Final = 1_000
"""Records; a service handles them within seconds."""
LETTERS_READ: Final = 500
RETENTION_MARGIN: Final = timedelta(days=1)
"""How much longer inbox rows must be kept than records, for replays and clock differences."""


async def check_topics(
    bootstrap: str, prefix: str, *, replication: int | None, inbox_retention: timedelta | None
) -> AsyncIterator[Finding]:
    """Check that the brokers respond, and compare the topics with their declaration and with the inboxes.

    Args:
        bootstrap: Kafka's brokers.
        prefix: prefix of the topic names.
        replication: required replicas of each topic; None for one per broker, 3 at most.
        inbox_retention: the shortest inbox retention of a service, if known.
    """
    async with _admin(bootstrap) as admin:
        cluster = await admin.describe_cluster()
        brokers = len(cluster["brokers"])
        yield ok(f"{brokers} broker{'s' if brokers > 1 else ''} at {bootstrap}", area="kafka")
        if brokers < 3:  # noqa: PLR2004 -- with fewer, one broker acknowledges a write alone
            yield warning(
                "a power cut may lose acknowledged records", "run three brokers with --replication 3", area="kafka"
            )
        required = min(3, brokers) if replication is None else replication
        differences = await check(bootstrap, prefix=prefix, replication=required)
        # The embedded Kafka has fewer partitions than declared.
        differences = [line for line in differences if "partitions instead" not in line]
        for line in differences:
            yield problem(line, f"nest topics apply --bootstrap {bootstrap} --replication {required}")
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


async def check_consumers(bootstrap: str, prefix: str) -> AsyncIterator[Finding]:
    """Check that every service runs, and its consumer lag."""
    async with _admin(bootstrap) as admin, _consumer(bootstrap) as consumer:
        for finding in await asyncio.gather(*(_check_group(admin, consumer, prefix, each) for each in SERVICES)):
            yield finding


async def _check_group(admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, prefix: str, service: str) -> Finding:
    group = prefix + service
    members = await _member_count(admin, group)
    offsets = await admin.list_consumer_group_offsets(group)
    committed = {partition: each.offset for partition, each in offsets.items() if each.offset >= 0}
    ends = await consumer.end_offsets(list(committed)) if committed else {}
    lag = sum(max(0, ends[partition] - offset) for partition, offset in committed.items())
    if not members:
        return problem(f"no instance of {service} runs; its lag is {lag} records", f"start it: nest run {service}")
    if lag > LAG_WARNING:
        return warning(f"{service} is {lag} records behind", "read its log; start another instance if it is busy")
    return ok(f"{service}: {members} running, {lag} records behind")


async def check_dead_letters(bootstrap: str, prefix: str, auth: Database | None) -> AsyncIterator[Finding]:
    """Count the dead letters that were neither replayed nor removed."""
    queue = DeadLetterQueue(bootstrap, prefix=prefix)
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


def _admin(bootstrap: str) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=8_000)
    return _started(admin, admin.close)


def _consumer(bootstrap: str) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False)
    return _started(consumer, consumer.stop)


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
