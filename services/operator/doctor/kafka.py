"""Checks of Kafka: brokers, topics and dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from services.operator.doctor.findings import Finding, ok, problem, skipped, warning
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import TOPICS, check, dead_letter_topic, declared
from shared.dead_letters.queue import DeadLetterQueue
from shared.mongo import Database

RETENTION: Final = timedelta(milliseconds=min(topic.retention for topic in TOPICS if topic.consumed))
LETTERS_READ: Final = 500
OPERATOR: Final = "run nest doctor with the Kafka user of operator: NEST_OPERATOR_KAFKA_USER and _PASSWORD"
RETENTION_MARGIN: Final = timedelta(days=1)
"""How much longer inbox rows must be kept than records, for replays and clock differences."""


async def report_invalid_settings(lines: Sequence[str]) -> AsyncIterator[Finding]:
    """Report settings with which no command connects to Kafka."""
    for line in lines:
        yield problem(line, "set the variable; docs/settings.md lists its values")


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
    async with admin_client(kafka) as admin:
        cluster = await admin.describe_cluster()
        brokers = len(cluster["brokers"])
        yield ok(f"{brokers} broker{'s' if brokers > 1 else ''} at {kafka.bootstrap}", area="kafka")
        if brokers < 3:  # noqa: PLR2004 -- with fewer, one broker acknowledges a write alone
            yield warning(
                "a power cut may lose acknowledged records",
                "run three brokers with --replication 3",
                area="kafka",
                embedded="one broker, which is enough for a developer's machine; a crash loses nothing",
            )
        required = min(3, brokers) if replication is None else replication
        described = await admin.describe_topics([prefix + topic.name for topic in declared()])
        hidden = hidden_topics(described)
        visible = [topic for topic in described if topic["topic"] not in hidden]
        settings_known = not hidden and await _may_read_settings(admin, described[0]["topic"])
        if settings_known:
            differences = await check(kafka, prefix=prefix, replication=required)
        else:
            unknown = [topic for topic in visible if topic["error_code"] == UnknownTopicOrPartitionError.errno]
            differences = [f"{topic['topic']} is missing" for topic in unknown]
            topics = (
                f"{len(hidden)} of {len(described)} topics, and the settings of all" if hidden else "settings of topics"
            )
            yield skipped(f"not checked: {topics}, which the Kafka user may not see", OPERATOR)
        # The embedded Kafka has fewer partitions than declared.
        differences = [line for line in differences if "partitions instead" not in line]
        for line in differences:
            yield problem(line, f"nest topics apply --bootstrap {kafka.bootstrap} --replication {required}")
        existing = [topic for topic in visible if not topic["error_code"] and not topic["topic"].endswith(".dead")]
        unhealthy = [line for topic in existing for line in _unhealthy_partitions(topic, required)]
        for line in unhealthy:
            yield problem(line, "check that every broker runs; reassign a topic to add replicas")
        too_long: list[Finding] = []
        if inbox_retention is not None and settings_known:
            too_long = await _retention_findings(admin, prefix, inbox_retention)
        for finding in too_long:
            yield finding
    if settings_known and not (differences or unhealthy or too_long):
        yield ok("all have their configuration and replicas, and shorter retention than the inboxes")


def hidden_topics(described: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the topics that the Kafka user may not describe."""
    return [each["topic"] for each in described if each["error_code"] == TopicAuthorizationFailedError.errno]


async def _may_read_settings(admin: AIOKafkaAdminClient, topic: str) -> bool:
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return bool(answer.resources[0][0] != TopicAuthorizationFailedError.errno)


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


async def check_dead_letters(kafka: KafkaConnection, prefix: str, auth: Database | None) -> AsyncIterator[Finding]:
    """Count the dead letters that were neither replayed nor removed; auth's database, if readable, knows which."""
    async with admin_client(kafka) as admin:
        names = [prefix + dead_letter_topic(topic.name) for topic in TOPICS if topic.consumed]
        hidden = hidden_topics(await admin.describe_topics(names))
    if hidden:
        yield skipped(f"not checked: those of {', '.join(hidden)}, which the Kafka user may not see", OPERATOR)
    if len(hidden) == len(names):
        return
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


@asynccontextmanager
async def admin_client(kafka: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client."""
    admin = AIOKafkaAdminClient(**kafka.options, request_timeout_ms=8_000)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
