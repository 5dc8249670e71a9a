"""What the doctor says of topics and consumers, asked of a real Kafka that is not as it should be."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.kafka import MUCH_LAG, look_at_consumers, look_at_topics
from shared.bus import topics
from tests.operator.conftest import without

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
async def prefix(kafka_bootstrap: str, unique: Callable[[], str]) -> str:
    """Topics as they should be."""
    prefix = unique()
    await topics.apply(kafka_bootstrap, prefix=prefix, max_partitions=1)
    return prefix


async def seen(bootstrap: str, prefix: str, *, replication: int = 1, remembered: timedelta = 8 * DAY) -> list[Finding]:
    """What is said of its topics."""
    looked = look_at_topics(bootstrap, prefix, replication=replication, remembered=remembered)
    return [finding async for finding in looked if finding.area == "topics"]


async def test_topics_as_declared_are_well_and_their_own_number_of_partitions_is_no_matter(
    kafka_bootstrap: str, prefix: str
) -> None:
    (told,) = await seen(kafka_bootstrap, prefix)
    assert told.level is Level.OK, told


async def test_a_topic_must_not_outlive_what_the_inbox_remembers(kafka_bootstrap: str, prefix: str) -> None:
    less = await seen(kafka_bootstrap, prefix, remembered=timedelta(days=7, hours=1))
    shorter = await seen(kafka_bootstrap, prefix, remembered=6 * DAY)
    for findings, level in ((less, Level.WARNING), (shorter, Level.PROBLEM)):
        assert {finding.level for finding in findings} == {level}
        assert f"{prefix}auth.commands keeps records for 7 days" in findings[0].says
        assert "NEST_INBOX_RETENTION" in findings[0].do


async def test_a_topic_that_keeps_for_ever_is_named(
    kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, prefix: str
) -> None:
    name = f"{prefix}news.commands"
    for retention, says in (("-1", "for ever"), ("777600000", "for 9 days")):
        wrong = ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": retention})
        await kafka_admin.alter_configs([wrong])
        findings = await seen(kafka_bootstrap, prefix)
        assert any(f"{name}: retention.ms is {retention}" in finding.says for finding in findings)
        assert any(f"{name} keeps records {says}" in finding.says for finding in findings)
        assert {finding.level for finding in findings} == {Level.PROBLEM}
    await topics.apply(kafka_bootstrap, prefix=prefix, max_partitions=1)


async def test_too_few_copies_and_a_missing_topic_are_named(
    kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, prefix: str
) -> None:
    findings = await seen(kafka_bootstrap, prefix, replication=2)
    assert f"{prefix}auth.commands: 1 partitions have fewer copies than 2" in [finding.says for finding in findings]
    await without(kafka_admin, f"{prefix}mailer.events.dead")
    findings = await seen(kafka_bootstrap, prefix)
    assert f"{prefix}mailer.events.dead is missing" in [finding.says for finding in findings]
    await topics.apply(kafka_bootstrap, prefix=prefix, max_partitions=1)


async def test_who_reads_nothing_and_who_is_behind_are_told(kafka_bootstrap: str, prefix: str) -> None:
    commands = TopicPartition(f"{prefix}news.commands", 0)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, linger_ms=5)
    await producer.start()
    try:
        sent = [await producer.send(commands.topic, b"{}") for _ in range(MUCH_LAG + 1)]
        await sent[-1]
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(
        commands.topic, bootstrap_servers=kafka_bootstrap, group_id=f"{prefix}news", enable_auto_commit=False
    )
    await consumer.start()
    try:
        await consumer.commit({commands: 0})
        told = [finding async for finding in look_at_consumers(kafka_bootstrap, prefix)]
    finally:
        await consumer.stop()
    levels = {finding.says.split()[0]: finding.level for finding in told}
    assert levels == {"nobody": Level.PROBLEM, "news": Level.WARNING}
    assert f"news is {MUCH_LAG + 1} records behind" in [finding.says for finding in told]
    assert "nobody runs auth; 0 records wait" in [finding.says for finding in told]
