"""Handlers that list and resume the paused partitions of all services.

Auth handles them for every service, since the audit is here, and since the partition of another service's own commands
may be the paused one.
"""

from __future__ import annotations

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from shared.bus.work import Work
from shared.messages.auth.errors import PartitionNotPaused
from shared.messages.auth.partitions import (
    ListPausedPartitions,
    PartitionResumed,
    PausedPartitionsView,
    ResumePartition,
)


async def list_paused_partitions(_query: ListPausedPartitions, _work: Work, auth: Auth) -> PausedPartitionsView:
    """Return the paused partitions of all services."""
    return PausedPartitionsView(partitions=tuple(auth.paused_partitions.all()))


@audited("resume_partition")
async def resume_partition(command: ResumePartition, work: Work, auth: Auth) -> None:
    """Order the service of a paused partition to resume it.

    Raises:
        PartitionNotPaused: its service has not paused it.
    """
    if auth.paused_partitions.find(command.id) is None:
        raise PartitionNotPaused
    work.annotate(resource_id=command.id)
    work.publish(PartitionResumed(key=command.id, id=command.id, dead_letter=command.dead_letter, at=work.now))
