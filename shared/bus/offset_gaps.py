"""Offset gaps: records that Kafka deleted before a consumer group read them.

They can be detected only until the group commits its next offset, so each partition is checked before that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata


@dataclass(frozen=True, slots=True)
class OffsetGap:
    """Records of one partition that expired unread.

    Attributes:
        partition: their partition.
        first: offset of the first one.
        next: offset of the first record that can still be read.
        last_read: timestamp of the last record that the group has read, Unix milliseconds; 0 if it is unknown.
    """

    partition: TopicPartition
    first: int
    next: int
    last_read: int

    @property
    def count(self) -> int:
        """Number of expired records."""
        return self.next - self.first


def find_gaps(
    partitions: Collection[TopicPartition],
    committed: Mapping[TopicPartition, OffsetAndMetadata],
    beginnings: Mapping[TopicPartition, int],
) -> list[OffsetGap]:
    """Return the gaps of a consumer group.

    A group without a committed offset has read nothing: it is new, or Kafka has deleted its offsets because it was away
    for a week (``offsets.retention.minutes``).
    """
    gaps = []
    for partition in sorted(partitions):
        found = committed.get(partition)
        first = max(found.offset, 0) if found is not None else 0
        if first < beginnings[partition]:
            gaps.append(OffsetGap(partition, first, beginnings[partition], last_read_of(found)))
    return gaps


def last_read_of(committed: OffsetAndMetadata | None) -> int:
    """Return the timestamp that a commit states for the last record before its offset; 0 if it states none."""
    metadata = committed.metadata if committed is not None else ""
    return int(metadata) if metadata.isdecimal() else 0
