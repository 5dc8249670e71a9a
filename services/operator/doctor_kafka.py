"""Is Kafka there, are its topics what they should be, does every service read, and what was put aside?"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from services.operator.doctor_findings import Finding, ok, problem, warning
from shared.dead_letter_topics import DeadLetterTopics
from shared.dead_letters import DeadLetter
from shared.mongo import Database
from shared.topics import SERVICES, check

MUCH_LAG: Final = 1_000
"""Records: some seconds' work."""
MOST_LETTERS: Final = 500


async def look_at_topics(bootstrap: str, prefix: str, *, replication: int | None) -> AsyncIterator[Finding]:
    """Whether Kafka answers, and what differs from the declaration."""
    async with _admin(bootstrap) as admin:
        cluster = await admin.describe_cluster()
        brokers = len(cluster["brokers"])
        yield ok("kafka", f"{brokers} broker{'s' if brokers > 1 else ''} at {bootstrap}")
    wanted = min(3, brokers) if replication is None else replication
    if brokers < 3:  # noqa: PLR2004 -- below it a write waits for one broker only
        yield warning("kafka", "a power cut may lose what was acknowledged last", "run three brokers, --replication 3")
    # A machine of one's own has fewer partitions than declared.
    wrong = [
        line for line in await check(bootstrap, prefix=prefix, replication=wanted) if "partitions instead" not in line
    ]
    for line in wrong:
        yield problem("topics", line, f"nest topics apply --bootstrap {bootstrap} --replication {wanted}")
    if not wrong:
        yield ok("topics", "all are there, with their settings")


async def look_at_consumers(bootstrap: str, prefix: str) -> AsyncIterator[Finding]:
    """Whether every service reads its topics, and how far it is behind."""
    async with _admin(bootstrap) as admin, _consumer(bootstrap) as consumer:
        for service in SERVICES:
            group = prefix + service
            members = await _members(admin, group)
            offsets = await admin.list_consumer_group_offsets(group)
            read = {partition: found.offset for partition, found in offsets.items() if found.offset >= 0}
            ends = await consumer.end_offsets(list(read)) if read else {}
            lag = sum(max(0, ends[partition] - offset) for partition, offset in read.items())
            if not members:
                yield problem(
                    "consumers", f"nobody runs {service}; {lag} records wait", f"start it: nest run {service}"
                )
            elif lag > MUCH_LAG:
                yield warning(
                    "consumers",
                    f"{service} is {lag} records behind",
                    "see its log; start another instance if it is busy",
                )
            else:
                yield ok("consumers", f"{service}: {members} running, {lag} records behind")


async def look_at_dead_letters(bootstrap: str, prefix: str, auth: Database | None) -> AsyncIterator[Finding]:
    """What was put aside and not replayed."""
    topics = DeadLetterTopics(bootstrap, prefix=prefix)
    page = await topics.newest(lambda _: True, topic=None, limit=MOST_LETTERS, cursor=None)
    waiting: list[DeadLetter] = page.letters
    if auth is not None:
        marks = [letter.mark for letter in page.letters]
        replayed = {document["_id"] for document in await auth["replays"].find({"_id": {"$in": marks}}).to_list()}
        waiting = [letter for letter in page.letters if letter.mark not in replayed]
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
