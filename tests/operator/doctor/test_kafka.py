"""Checks of topics on a real Kafka with faults."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.operator.doctor.findings import Finding, Level
from services.operator.doctor.kafka import check_topics
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
