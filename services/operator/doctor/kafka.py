"""Is Kafka there, are its topics what they should be, does every service read, and what was put aside?"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.operator.doctor.findings import Finding, ok, problem, warning
from shared.bus.topics import SERVICES, TOPICS, check
from shared.dead_letters.queue import DeadLetterQueue
from shared.dead_letters.records import DeadLetter
from shared.mongo import Database

MUCH_LAG: Final = 1_000
"""Records: some seconds' work."""
MOST_LETTERS: Final = 500
A_DAY: Final = timedelta(days=1)
"""How much longer an inbox must remember than its topics keep: replays and slow clocks come on top."""


async def look_at_topics(
    bootstrap: str, prefix: str, *, replication: int | None, remembered: timedelta | None
) -> AsyncIterator[Finding]:
    """Whether Kafka answers, and what differs from the declaration.

    Args:
        bootstrap: where Kafka is.
        prefix: of the topics' names.
        replication: copies that each should have; None for as many as brokers, 3 at most.
        remembered: the shortest time that a service's inbox remembers; None where that is not known.
    """
    async with _admin(bootstrap) as admin:
        cluster = await admin.describe_cluster()
        brokers = len(cluster["brokers"])
        yield ok("kafka", f"{brokers} broker{'s' if brokers > 1 else ''} at {bootstrap}")
        if brokers < 3:  # noqa: PLR2004 -- below it a write waits for one broker only
            yield warning(
                "kafka", "a power cut may lose what was acknowledged last", "run three brokers, --replication 3"
            )
        wanted = min(3, brokers) if replication is None else replication
        # A machine of one's own has fewer partitions than declared.
        differing = await check(bootstrap, prefix=prefix, replication=wanted)
        wrong = [line for line in differing if "partitions instead" not in line]
        for line in wrong:
            yield problem("topics", line, f"nest topics apply --bootstrap {bootstrap} --replication {wanted}")
        found = await admin.describe_topics([prefix + topic.name for topic in TOPICS])
        ailing = [line for topic in found for line in _ailing(topic, wanted)]
        for line in ailing:
            yield problem("topics", line, "see that every broker runs; a topic gets more copies by reassigning it")
        outliving = [] if remembered is None else await _outliving(admin, prefix, remembered)
        for finding in outliving:
            yield finding
    if not (wrong or ailing or outliving):
        yield ok("topics", "all are there, with their settings and copies, and inboxes remember for longer")


def _ailing(topic: Mapping[str, Any], replication: int) -> list[str]:
    """What keeps partitions of a topic from being written to, or from outliving a broker."""
    partitions = topic["partitions"]
    without = [each for each in partitions if each["leader"] < 0]
    fewer = [each for each in partitions if len(each["replicas"]) < replication]
    behind = [each for each in partitions if len(each["isr"]) < len(each["replicas"])]
    told = (
        (without, "have no leader: nothing can be written there"),
        (fewer, f"have fewer copies than {replication}"),
        (behind, "have copies that are behind"),
    )
    return [f"{topic['topic']}: {len(which)} partitions {what}" for which, what in told if which]


async def _outliving(admin: AIOKafkaAdminClient, prefix: str, remembered: timedelta) -> list[Finding]:
    """The topics whose records are there for longer than it is remembered that they were handled."""
    found = []
    for topic in TOPICS:
        name = prefix + topic.name
        kept = await _retention(admin, name) if topic.consumed else None
        if kept is None or (kept >= 0 and timedelta(milliseconds=kept) + A_DAY <= remembered):
            continue
        long = "for ever" if kept < 0 else f"for {timedelta(milliseconds=kept)}"
        says = f"{name} keeps records {long}, and NEST_INBOX_RETENTION is {remembered}"
        do = "set NEST_INBOX_RETENTION to a day more than the topics keep, or nest topics apply"
        outlived = kept < 0 or timedelta(milliseconds=kept) > remembered
        found.append(
            problem("topics", f"{says}: what waits for longer is put aside as too_old", do)
            if outlived
            else warning("topics", f"{says}: less than a day more", do)
        )
    return found


async def _retention(admin: AIOKafkaAdminClient, name: str) -> int | None:
    """Milliseconds that a topic keeps a record, negative for ever; None for a topic that is not there."""
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    told = {entry[0]: entry[1] for answer in answers for each in answer.resources for entry in each[4]}
    return int(told["retention.ms"]) if "retention.ms" in told else None


async def look_at_consumers(bootstrap: str, prefix: str) -> AsyncIterator[Finding]:
    """Whether every service reads its topics, and how far it is behind."""
    async with _admin(bootstrap) as admin, _consumer(bootstrap) as consumer:
        for finding in await asyncio.gather(*(_of_service(admin, consumer, prefix, service) for service in SERVICES)):
            yield finding


async def _of_service(admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, prefix: str, service: str) -> Finding:
    group = prefix + service
    members = await _members(admin, group)
    offsets = await admin.list_consumer_group_offsets(group)
    read = {partition: found.offset for partition, found in offsets.items() if found.offset >= 0}
    ends = await consumer.end_offsets(list(read)) if read else {}
    lag = sum(max(0, ends[partition] - offset) for partition, offset in read.items())
    if not members:
        return problem("consumers", f"nobody runs {service}; {lag} records wait", f"start it: nest run {service}")
    if lag > MUCH_LAG:
        behind = f"{service} is {lag} records behind"
        return warning("consumers", behind, "see its log; start another instance if it is busy")
    return ok("consumers", f"{service}: {members} running, {lag} records behind")


async def look_at_dead_letters(bootstrap: str, prefix: str, auth: Database | None) -> AsyncIterator[Finding]:
    """What was put aside, and not replayed or removed."""
    topics = DeadLetterQueue(bootstrap, prefix=prefix)
    page = await topics.newest(lambda _: True, topic=None, limit=MOST_LETTERS, cursor=None)
    waiting: list[DeadLetter] = page.letters
    if auth is not None:
        marks = [letter.dedup_key for letter in page.letters]
        known = {"_id": {"$in": marks}}
        seen_to = [await auth[kept].find(known).to_list() for kept in ("replays", "removed_letters")]
        over = {document["_id"] for documents in seen_to for document in documents}
        waiting = [letter for letter in page.letters if letter.dedup_key not in over]
    if not waiting:
        yield ok("dead letters", "none wait")
        return
    counts = Counter(f"{topics.service(letter)} {letter.reason}" for letter in waiting)
    told = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    more = " at least" if page.next_cursor else ""
    yield warning("dead letters", f"{len(waiting)}{more} wait: {told}", "nest dead list; then nest dead replay")


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=8_000)
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def _consumer(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False)
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def _members(admin: AIOKafkaAdminClient, group: str) -> int:
    """How many instances are in a group."""
    answers: list[Any] = await admin.describe_consumer_groups([group])
    return sum(len(found[-1] if isinstance(found[-1], list) else found[5]) for each in answers for found in each.groups)
