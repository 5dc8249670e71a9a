"""Checks of consumer groups on a real Kafka: members, partitions, lag, and offsets that stand still."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from services.operator.doctor.consumers import LAG_WARNING, STABLE, Look, Member, _Group, check_consumers
from services.operator.doctor.findings import Finding, Level
from shared.bus import topics
from shared.bus.consumer_lag import Lag
from shared.bus.kafka_connection import KafkaConnection

HOUR = 3_600_000


@pytest.fixture(scope="module")
async def prefix(kafka_bootstrap: str, unique: Callable[[], str]) -> str:
    """Prefix of topics with one partition each."""
    prefix = unique()
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=prefix, max_partitions=1)
    return prefix


@pytest.fixture(scope="module")
async def producer(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, linger_ms=5) as producer:
        yield producer


def consumed(service: str) -> list[str]:
    return [topic for topic, services in topics.CONSUMERS.items() if service in services]


@asynccontextmanager
async def members(
    bootstrap: str, prefix: str, service: str, *, count: int = 1, subscribed: Sequence[str] = ()
) -> AsyncIterator[AIOKafkaConsumer]:
    """Members of a service's group, in the topics that it consumes or others; all have joined when it returns."""
    names = [prefix + topic for topic in subscribed or consumed(service)]
    consumers = [
        AIOKafkaConsumer(
            *names,
            bootstrap_servers=bootstrap,
            group_id=prefix + service,
            enable_auto_commit=False,
            heartbeat_interval_ms=200,
        )
        for _ in range(count)
    ]
    try:
        # One after another: the last one's partitions are final.
        for consumer in consumers:
            await consumer.start()
        yield consumers[0]
    finally:
        for consumer in consumers:
            await consumer.stop()


async def findings_about(service: str, bootstrap: str, prefix: str, *, seconds: float = 0.3) -> list[Finding]:
    findings = check_consumers(KafkaConnection(bootstrap), prefix, still_seconds=seconds)
    return [finding async for finding in findings if service in finding.says]


async def test_missing_instances_and_consumer_lag_are_reported(
    kafka_bootstrap: str, prefix: str, producer: AIOKafkaProducer
) -> None:
    commands = TopicPartition(f"{prefix}news.commands", 0)
    sent = [await producer.send(commands.topic, b"{}") for _ in range(LAG_WARNING + 1)]
    await sent[-1]
    async with members(kafka_bootstrap, prefix, "news") as consumer:
        await consumer.commit({commands: 0})
        findings = check_consumers(KafkaConnection(kafka_bootstrap), prefix, still_seconds=0.3)
        found = {finding.says.split(" behind")[0]: finding.level async for finding in findings}
    [news] = [(says, level) for says, level in found.items() if says.startswith("news")]
    assert news == (f"news is {LAG_WARNING + 1} records", Level.WARNING)
    assert {level for says, level in found.items() if says.startswith("no instance of ")} == {Level.PROBLEM}
    assert "no instance of auth runs; it is 0 records" in found


async def test_old_and_expired_records_are_problems(
    kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, prefix: str, producer: AIOKafkaProducer
) -> None:
    commands = TopicPartition(f"{prefix}mailer.commands", 0)
    now = int(time.time() * 1000)
    async with members(kafka_bootstrap, prefix, "mailer") as consumer:
        for hours in (60, 50, 49, 1):
            await producer.send_and_wait(commands.topic, b"{}", timestamp_ms=now - hours * HOUR)
        await consumer.commit({commands: (1, str(now - 60 * HOUR))})
        stopped, behind = await findings_about("mailer", kafka_bootstrap, prefix)
        await kafka_admin.delete_records({commands: RecordsToDelete(3)})
        expired, *_ = await findings_about("mailer", kafka_bootstrap, prefix)
    assert {stopped.level, behind.level, expired.level} == {Level.PROBLEM}
    assert stopped.says.startswith("mailer has stopped: its offset stands still")
    assert f"in partition 0 of {commands.topic}" in stopped.says
    assert behind.says.startswith("mailer is 3 records behind, the oldest for 2 days, 2:00:")
    assert expired.says == f"2 records of {commands.topic} expired before mailer read them"
    assert "nest run mailer" in expired.do


@pytest.mark.parametrize("commits", [True, False])
async def test_an_offset_that_stands_still_while_the_end_grows_is_a_problem(
    kafka_bootstrap: str, prefix: str, producer: AIOKafkaProducer, *, commits: bool
) -> None:
    commands = TopicPartition(f"{prefix}billing.commands", 0)

    async def traffic(consumer: AIOKafkaConsumer) -> None:
        while True:
            sent = await producer.send_and_wait(commands.topic, b"{}")
            if commits:
                # The last record always waits.
                await consumer.commit({commands: sent.offset})
            await asyncio.sleep(0.05)

    async with members(kafka_bootstrap, prefix, "billing") as consumer:
        await consumer.commit({commands: (await producer.send_and_wait(commands.topic, b"{}")).offset})
        running = asyncio.create_task(traffic(consumer))
        try:
            findings = await findings_about("billing", kafka_bootstrap, prefix, seconds=1.5)
        finally:
            running.cancel()
    [finding] = findings
    if commits:
        assert finding.level is Level.OK
        assert finding.says.startswith("billing: 1 running, ")
    else:
        assert finding.level is Level.PROBLEM
        assert finding.says.startswith(
            f"billing has stopped: its offset stands still for 1.5 s in partition 0 of {commands.topic}"
        )
        assert "127.0.0.1" in finding.do


async def test_a_partition_without_a_member_is_a_problem(kafka_bootstrap: str, prefix: str) -> None:
    async with members(kafka_bootstrap, prefix, "auth", subscribed=["auth.commands", "republishing"]):
        [finding] = await findings_about("auth", kafka_bootstrap, prefix)
    assert finding.level is Level.PROBLEM
    assert finding.says == (
        f"no instance of auth has partition 0 of {prefix}auth.service-commands, partition 0 of {prefix}billing.events:"
        " their records wait"
    )


async def test_a_member_without_a_partition_is_a_warning(kafka_bootstrap: str, prefix: str) -> None:
    async with members(kafka_bootstrap, prefix, "auth", count=5):
        [finding] = await findings_about("auth", kafka_bootstrap, prefix, seconds=5)
    assert finding.level is Level.WARNING
    assert finding.says == "1 of 5 instances of auth have no partition"


PARTITIONS = [TopicPartition("auth.commands", each) for each in range(5)]
ALL = frozenset(PARTITIONS)


def look(*, state: str = STABLE, assigned: frozenset[TopicPartition] = ALL, end: int = 9, position: int = 9) -> Look:
    return Look(
        state, (Member("/10.0.0.5", assigned),), dict.fromkeys(PARTITIONS, end), dict.fromkeys(PARTITIONS, position)
    )


@pytest.mark.parametrize(
    ("first", "last", "age", "expected"),
    [
        (look(), look(), 0, None),
        # Records that arrived after the first look may be in work.
        (look(), look(end=12), 0, None),
        # One record waits, and none arrives behind it.
        (look(position=8), look(position=8), 20, None),
        (look(position=8), look(position=8), 70, "partition 2 of auth.commands and 2 more, and 0 records arrived"),
        (look(position=8), look(position=8, end=12), 20, "and 2 more, and 15 records arrived meanwhile"),
        (look(position=8), look(position=9, end=12), 70, None),
        (look(), look(assigned=ALL - {PARTITIONS[4]}), 0, "no instance of auth has partition 4 of auth.commands"),
        (look(), look(state="PreparingRebalance", assigned=frozenset()), 0, "have been reassigned for 10 s"),
    ],
)
def test_what_counts_as_stopped(first: Look, last: Look, age: float, expected: str | None) -> None:
    group = _Group(None, None, None, "", "auth")  # type: ignore[arg-type]
    lag = Lag(1, int((time.time() - age) * 1000), 0, ())
    findings = list(group._stopped(first, last, lag, 10.0))
    assert len(findings) == (expected is not None)
    assert all(expected in finding.says for finding in findings if expected)
