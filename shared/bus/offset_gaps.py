"""Offset gaps: records that Kafka deleted or lost before a consumer group read them.

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
        lost: Kafka has lost the topic, or its newest records. Nobody knows which records the group has missed.
    """

    partition: TopicPartition
    first: int
    next: int
    last_read: int
    lost: bool = False

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


def find_lost(
    partitions: Collection[TopicPartition],
    committed: Mapping[TopicPartition, OffsetAndMetadata],
    beginnings: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    had_offsets: Collection[str],
    *,
    elsewhere: Collection[str] = (),
) -> list[OffsetGap]:
    """Return the partitions whose records Kafka has lost.

    The group had offsets in the topic and has none any more, as in a new cluster. Or its offset is beyond the last
    record, as after a restore of a broker's disk. Or the cluster is a copy of the one before: then the newest records
    may be missing, and the group continues at its offset.

    Args:
        partitions: the assigned partitions.
        committed: the group's offsets in all partitions of their topics.
        beginnings: the first offset of each assigned partition.
        ends: the offset after the last record of each assigned partition.
        had_offsets: topics in which the group has committed an offset before.
        elsewhere: those of them in which it has committed none in this cluster.
    """
    have = {partition.topic for partition, found in committed.items() if found.offset >= 0}
    gaps = []
    for partition in sorted(partitions):
        offset = max(committed[partition].offset, 0) if partition in committed else 0
        next_offset = offset if beginnings[partition] < offset <= ends[partition] else beginnings[partition]
        gone = partition.topic in had_offsets and partition.topic not in have
        if gone or partition.topic in elsewhere or offset > ends[partition]:
            gaps.append(OffsetGap(partition, next_offset, next_offset, 0, lost=True))
    return gaps


def last_read_of(committed: OffsetAndMetadata | None) -> int:
    """Return the timestamp that a commit states for the last record before its offset; 0 if it states none."""
    metadata = committed.metadata if committed is not None else ""
    return int(metadata) if metadata.isdecimal() else 0
