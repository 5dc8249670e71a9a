"""Listing and resumption of paused partitions."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from shared.bus.envelope import encode
from shared.messages import Caller, Message
from shared.messages.auth.partitions import (
    ListPausedPartitions,
    PartitionPaused,
    PartitionResumed,
    PausedPartitionView,
    ResumePartition,
)
from tests.service_harness import Refused, ServiceHarness

OPERATOR = Caller(kind="internal", client_ip="10.0.0.1")


def announced(harness: ServiceHarness, message: Message) -> None:
    headers = (("mac", b"checked before"), ("type", message.wire.encode()))
    record: Any = SimpleNamespace(value=encode(message, harness.sealer), headers=headers, offset=0)
    harness.context.paused_partitions.apply(record)


def pause(partition: str) -> PartitionPaused:
    view = {"reason": "10 dead letters in a row", "offset": 7, "since": "2026-11-28T12:00:00Z", "release": "1.0"}
    return PartitionPaused(
        key=partition, pause=PausedPartitionView.model_validate({"id": partition, "instance": "a-1", **view})
    )


async def test_paused_partitions_are_listed_until_they_are_resumed(harness: ServiceHarness) -> None:
    for partition in ("mailer/mailer.commands/3", "auth/billing.events/1"):
        announced(harness, pause(partition))
    listed = (await harness.deliver(ListPausedPartitions(), caller=OPERATOR))["partitions"]
    assert [each["id"] for each in listed] == ["auth/billing.events/1", "mailer/mailer.commands/3"]
    assert listed[1] == {
        "id": "mailer/mailer.commands/3",
        "reason": "10 dead letters in a row",
        "offset": 7,
        "since": "2026-11-28T12:00:00.000Z",
        "instance": "a-1",
        "release": "1.0",
    }
    announced(harness, PartitionResumed(id="auth/billing.events/1", at=harness.now))
    listed = (await harness.deliver(ListPausedPartitions(), caller=OPERATOR))["partitions"]
    assert [each["id"] for each in listed] == ["mailer/mailer.commands/3"]


@pytest.mark.parametrize("dead_letter", [False, True])
async def test_resumption_is_published_and_audited(harness: ServiceHarness, *, dead_letter: bool) -> None:
    announced(harness, pause("mailer/mailer.commands/3"))
    harness.clear()
    command = ResumePartition(id="mailer/mailer.commands/3", dead_letter=dead_letter)
    assert await harness.deliver(command, caller=OPERATOR) is None
    (resumed,) = harness.published_of(PartitionResumed)
    assert (resumed.id, resumed.dead_letter) == ("mailer/mailer.commands/3", dead_letter)
    (entry,) = harness.audited
    assert (entry.action, entry.outcome, entry.resource_id) == ("resume_partition", "done", command.id)


async def test_partition_that_is_not_paused_is_refused(harness: ServiceHarness) -> None:
    with pytest.raises(Refused) as refused:
        await harness.deliver(ResumePartition(id="mailer/mailer.commands/4"), caller=OPERATOR)
    assert refused.value.code == "partition_not_paused"
    assert [(entry.action, entry.code) for entry in harness.audited] == [("resume_partition", "partition_not_paused")]


@pytest.mark.parametrize("invalid", ["", "mailer", "mailer/mailer.commands", "a/b/x", "../a/1", "a/b/123456", "A/b/1"])
def test_id_has_service_topic_and_number(invalid: str) -> None:
    with pytest.raises(ValidationError):
        ResumePartition(id=invalid)


async def test_records_of_other_types_are_ignored(harness: ServiceHarness) -> None:
    for value, wire in ((b"{}", b"auth.partition-paused"), (b"{}", b"auth.partition-of-tomorrow"), (None, b"")):
        record: Any = SimpleNamespace(value=value, headers=(("type", wire),), offset=0)
        harness.context.paused_partitions.apply(record)
    assert (await harness.deliver(ListPausedPartitions(), caller=OPERATOR))["partitions"] == []
