"""Declaration, creation and checks of topics."""

from collections.abc import Sequence

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from shared.bus import topics
from shared.bus.kafka_connection import KafkaConnection
from shared.bus.topics import DAY, FOREVER, MINUTE, Topic, declared
from shared.settings import ServiceSettings
from tests.shared.bus_harness import wait_until

TABLE = (
    Topic("a.commands", 3, DAY),
    Topic("a.keys", 1, FOREVER, compacted=True, consumed=False),
    Topic("a.revocations", 1, 2 * DAY, compacted=True, consumed=False),
)
NAMES = ["a.commands", "a.commands.dead", "a.keys", "a.revocations"]


async def test_apply_creates_missing_topics_once(kafka_bootstrap: str, topic_prefix: str) -> None:
    created = await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE)
    assert created == [topic_prefix + name for name in NAMES]
    assert await topics.check(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE) == []
    assert await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE) == []


async def test_check_reports_a_missing_topic(kafka_bootstrap: str, topic_prefix: str) -> None:
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE[:1])
    assert await topics.check(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE[:2]) == [
        f"{topic_prefix}a.keys is missing"
    ]
    assert await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE[:2]) == [
        f"{topic_prefix}a.keys"
    ]


async def test_apply_changes_the_cleanup_policy_of_an_existing_topic(kafka_bootstrap: str, topic_prefix: str) -> None:
    older = Topic("a.revocations", 1, DAY // 12, consumed=False)
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=[older])
    assert f"{topic_prefix}a.revocations: cleanup.policy is delete instead of compact,delete" in await topics.check(
        KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE[2:]
    )
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE[2:])
    await wait_for_differences(kafka_bootstrap, topic_prefix, TABLE[2:], [])


async def test_a_different_number_of_partitions_is_reported_and_kept(kafka_bootstrap: str, topic_prefix: str) -> None:
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE, max_partitions=2)
    assert (
        await topics.check(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE, max_partitions=2) == []
    )
    difference = [f"{topic_prefix}a.commands has 2 partitions instead of 3"]
    assert await topics.check(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE) == difference
    # With more partitions the next message of a key could overtake earlier ones in the old partition.
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE)
    assert await topics.check(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE) == difference


async def test_a_topic_that_may_grow_keeps_its_partitions(kafka_bootstrap: str, topic_prefix: str) -> None:
    """That of an existing installation is no difference: ``nest topics grow`` changes it, and nothing else does."""
    kafka = KafkaConnection(kafka_bootstrap)
    older, newer = (Topic("b.commands", number, DAY, consumers=("b",)) for number in (3, 6))
    await topics.apply(kafka, prefix=topic_prefix, topics=[older])
    await topics.apply(kafka, prefix=topic_prefix, topics=[newer])
    assert await topics.check(kafka, prefix=topic_prefix, topics=[newer]) == []
    assert await topics.check(kafka, prefix=topic_prefix, topics=[older]) == []
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    try:
        (described,) = await admin.describe_topics([f"{topic_prefix}b.commands"])
    finally:
        await admin.close()
    assert len(described["partitions"]) == 3


def test_new_installations_have_48_partitions_per_command_topic() -> None:
    commands = {topic.partitions for topic in topics.TOPICS if topic.name.endswith(("commands", "stripe.webhooks"))}
    assert commands == {48}
    assert {topic.partitions for topic in declared(max_partitions=4) if topic.name.endswith(".commands")} == {4}


def test_no_topic_is_kept_for_more_than_six_hours_longer_than_its_retention() -> None:
    """Kafka deletes whole segments. By default one has a week, and a topic of ten minutes would be kept for that."""
    segments = {topic.name: int(topic.settings(1)["segment.ms"]) for topic in declared()}
    assert max(segments.values()) == 6 * 60 * MINUTE
    assert segments["gateway.replies"] == 10 * MINUTE
    assert segments["auth.revocations"] == 60 * MINUTE


async def test_a_changed_setting_is_reported_and_restored(
    kafka_bootstrap: str, topic_prefix: str, kafka_admin: AIOKafkaAdminClient
) -> None:
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE)
    name = f"{topic_prefix}a.commands"
    settings = TABLE[0].settings(1) | {"retention.ms": "1000"}
    await kafka_admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)])
    await wait_for_differences(kafka_bootstrap, topic_prefix, TABLE, [f"{name}: retention.ms is 1000 instead of {DAY}"])
    await topics.apply(KafkaConnection(kafka_bootstrap), prefix=topic_prefix, topics=TABLE)
    await wait_for_differences(kafka_bootstrap, topic_prefix, TABLE, [])


async def wait_for_differences(bootstrap: str, prefix: str, table: Sequence[Topic], expected: list[str]) -> None:
    """Wait until ``check`` reports these differences: brokers report a changed setting a moment after it was set."""

    async def reported() -> bool:
        return await topics.check(KafkaConnection(bootstrap), prefix=prefix, topics=table) == expected

    await wait_until(reported)


def test_dead_letter_topics_are_compacted_and_limited() -> None:
    for topic in declared():
        if topic.name.endswith(".dead"):
            settings = topic.settings(1)
            assert (settings["cleanup.policy"], settings["retention.ms"]) == ("compact,delete", str(30 * DAY))
            assert int(settings["max.compaction.lag.ms"]) <= DAY


def test_every_consumed_topic_has_a_dead_letter_topic() -> None:
    names = {topic.name for topic in declared()}
    for topic in topics.TOPICS:
        assert (topics.dead_letter_topic(topic.name) in names) == topic.consumed


def test_dead_letter_topics_keep_records_longer_and_take_larger_ones() -> None:
    for topic in topics.TOPICS:
        (dead_letters,) = [other for other in declared() if other.name == topics.dead_letter_topic(topic.name)] or [
            topic
        ]
        if topic.consumed:
            assert dead_letters.retention > topic.retention
            assert int(dead_letters.settings(3)["max.message.bytes"]) > int(topic.settings(3)["max.message.bytes"])


@pytest.mark.parametrize(("replication", "insync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_with_three_replicas_a_write_needs_two(replication: int, insync: str) -> None:
    assert {topic.settings(replication)["min.insync.replicas"] for topic in declared()} == {insync}


def test_the_inbox_retention_exceeds_the_topics_retention_by_a_day() -> None:
    retention = ServiceSettings.model_fields["inbox_retention"].default.total_seconds() * 1000
    assert all(topic.retention + DAY <= retention for topic in topics.TOPICS if topic.consumed)
