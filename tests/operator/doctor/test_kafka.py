"""Checks of topics and consumers on a real Kafka with faults."""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.kafka import LAG_WARNING, check_consumers, check_topics
from shared.bus import topics
from shared.bus.kafka_connection import KafkaConnection
from tests.operator.conftest import delete_topic
from tests.stack import eventually

DAY = timedelta(days=1)


@pytest.fixture(scope="module")
async def prefix(kafka_bootstrap: str, unique: Callable[[], str]) -> str:
    """Prefix of topics that are as declared, with one partition each."""
    prefix = unique()
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=prefix, max_partitions=1)
    return prefix


async def check(
    bootstrap: str, prefix: str, *, replication: int = 1, inbox_retention: timedelta = 8 * DAY
) -> list[Finding]:
    """Return the findings about topics."""
    findings = check_topics(
        KafkaConnection(bootstrap), prefix, replication=replication, inbox_retention=inbox_retention
    )
    return [finding async for finding in findings if finding.area != "kafka"]


async def findings_with(text: str, bootstrap: str, prefix: str) -> list[Finding]:
    """Return the findings about topics once one of them has this text, before that none."""
    findings = await check(bootstrap, prefix)
    return findings if any(text in finding.says for finding in findings) else []


async def test_declared_topics_are_ok_with_fewer_partitions(kafka_bootstrap: str, prefix: str) -> None:
    (finding,) = await check(kafka_bootstrap, prefix)
    assert finding.level is Level.OK, finding


async def test_topic_retention_must_be_shorter_than_the_inboxs(kafka_bootstrap: str, prefix: str) -> None:
    close = await check(kafka_bootstrap, prefix, inbox_retention=timedelta(days=7, hours=1))
    longer = await check(kafka_bootstrap, prefix, inbox_retention=6 * DAY)
    for findings, level in ((close, Level.WARNING), (longer, Level.PROBLEM)):
        assert {finding.level for finding in findings} == {level}
        assert f"{prefix}auth.commands keeps records for 7 days" in findings[0].says
        assert "NEST_INBOX_RETENTION" in findings[0].do


async def test_changed_retention_is_a_problem(
    kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, prefix: str
) -> None:
    name = f"{prefix}news.commands"
    for retention, text in (("-1", "for ever"), ("777600000", "for 9 days")):
        await kafka_admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"retention.ms": retention})])
        # A broker applies a changed setting shortly after the controller has acknowledged it.
        changed = f"{name}: retention.ms is {retention}"
        findings = await eventually(partial(findings_with, changed, kafka_bootstrap, prefix), within=30, what=changed)
        assert any(f"{name} keeps records {text}" in finding.says for finding in findings)
        assert {finding.level for finding in findings} == {Level.PROBLEM}
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=prefix, max_partitions=1)


async def test_missing_replicas_and_topics_are_problems(
    kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, prefix: str
) -> None:
    findings = await check(kafka_bootstrap, prefix, replication=2)
    assert f"{prefix}auth.commands: 1 partitions have fewer than 2 replicas" in [finding.says for finding in findings]
    await delete_topic(kafka_admin, f"{prefix}mailer.events.dead")
    findings = await check(kafka_bootstrap, prefix)
    assert f"{prefix}mailer.events.dead is missing" in [finding.says for finding in findings]
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=prefix, max_partitions=1)


async def test_missing_instances_and_consumer_lag_are_reported(kafka_bootstrap: str, prefix: str) -> None:
    commands = TopicPartition(f"{prefix}news.commands", 0)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, linger_ms=5)
    await producer.start()
    try:
        sent = [await producer.send(commands.topic, b"{}") for _ in range(LAG_WARNING + 1)]
        await sent[-1]
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(
        commands.topic, bootstrap_servers=kafka_bootstrap, group_id=f"{prefix}news", enable_auto_commit=False
    )
    await consumer.start()
    try:
        await consumer.commit({commands: 0})
        findings = [finding async for finding in check_consumers(KafkaConnection(kafka_bootstrap), prefix)]
    finally:
        await consumer.stop()
    levels = {finding.says.split()[0]: finding.level for finding in findings}
    assert levels == {"no": Level.PROBLEM, "news": Level.WARNING}
    texts = [finding.says for finding in findings]
    assert any(text.startswith(f"news is {LAG_WARNING + 1} records behind, the oldest for 0:00:") for text in texts)
    assert "no instance of auth runs; it is 0 records behind" in texts


async def test_old_and_expired_records_are_problems(
    kafka_bootstrap: str, kafka_admin: AIOKafkaAdminClient, prefix: str
) -> None:
    commands = TopicPartition(f"{prefix}mailer.commands", 0)
    now = int(time.time() * 1000)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    await producer.start()
    consumer = AIOKafkaConsumer(
        commands.topic, bootstrap_servers=kafka_bootstrap, group_id=f"{prefix}mailer", enable_auto_commit=False
    )
    await consumer.start()
    try:
        for hours in (60, 50, 49, 1):
            await producer.send_and_wait(commands.topic, b"{}", timestamp_ms=now - hours * 3_600_000)
        await consumer.commit({commands: (1, str(now - 60 * 3_600_000))})
        (behind,) = [
            each
            async for each in check_consumers(KafkaConnection(kafka_bootstrap), prefix)
            if each.says.startswith("mailer")
        ]
        await kafka_admin.delete_records({commands: RecordsToDelete(3)})
        findings = [
            each async for each in check_consumers(KafkaConnection(kafka_bootstrap), prefix) if "mailer" in each.says
        ]
    finally:
        await producer.stop()
        await consumer.stop()
    assert behind.level is Level.PROBLEM
    assert behind.says.startswith("mailer is 3 records behind, the oldest for 2 days, 2:00:")
    assert [each.level for each in findings] == [Level.PROBLEM]
    assert findings[0].says == f"2 records of {commands.topic} expired before mailer read them"
    assert "nest run mailer" in findings[0].do
