"""Paused partitions: their announcement to all processes, and the operator's order to resume one."""

from typing import Annotated, Final

from pydantic import Field

from shared.messages.auth.errors import PartitionNotPaused
from shared.messages.message import Command, Event, OperatorList, Part, Reply
from shared.messages.types import Many, Moment

PAUSED_PARTITIONS: Final = "paused-partitions"
"""Topic that tells every process which partitions are paused. The records' keys are partition IDs."""

PartitionId = Annotated[str, Field(min_length=5, max_length=200, pattern=r"^[a-z]+/[a-z.-]+/[0-9]{1,5}$")]
"""``<service>/<topic>/<number>``, the topic without the deployment's prefix."""


def partition_id(service: str, topic: str, number: int) -> str:
    """Return the ID of a partition as one service consumes it; several may consume one topic."""
    return f"{service}/{topic}/{number}"


class PausedPartitionView(Part):
    """A partition whose records a service does not handle, because ten in a row became dead letters."""

    id: str
    """ID of the partition: service, topic and number, for example ``mailer/mailer.commands/3``."""
    reason: str
    """Why it is paused."""
    offset: int | None
    """Offset of the first record that waits; null if it is unknown."""
    since: Moment
    """When it was paused."""
    instance: str
    """Instance of the service that has paused it."""
    release: str
    """Release of that instance. Instances of other releases do not honour the pause, because they may not have the
    fault."""


class PartitionPaused(Event, wire="auth.partition-paused", topic=PAUSED_PARTITIONS):
    """A service handles no more records of a partition. The key is its ID."""

    pause: PausedPartitionView


class PartitionResumed(Event, wire="auth.partition-resumed", topic=PAUSED_PARTITIONS):
    """A partition is to be resumed. The key is its ID."""

    id: str
    dead_letter: bool = False
    """Records that fail become dead letters, without a further pause, until one succeeds."""
    at: Moment


class PausedPartitionsView(Reply):
    """The paused partitions."""

    partitions: Many[PausedPartitionView]
    """All of them, by ID."""


class ListPausedPartitions(OperatorList, wire="auth.list-paused-partitions", reply=PausedPartitionsView):
    """List the paused partitions of all services."""


class ResumePartition(Command, wire="auth.resume-partition", refuses=(PartitionNotPaused,)):
    """Resume a paused partition.

    Its service handles the records from the first one that waits, and pauses the partition again after ten further dead
    letters in a row.
    """

    id: PartitionId
    """ID of the partition, as listed."""
    dead_letter: bool = Field(default=False, strict=True)
    """Let every record that fails become a dead letter, without a further pause, until one succeeds."""
