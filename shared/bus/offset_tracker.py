"""Offset tracker: the offset of a partition that may be committed.

Records are finished in any order, but only the offset after an unbroken run of finished records may be committed.
"""

from __future__ import annotations

from collections import deque


class OffsetTracker:
    """The unfinished records of one partition.

    Attributes:
        running: number of records that are being handled right now.
        closed: True once the partition is being revoked, or is paused; no further record may start.
        position: offset to commit, the one after the unbroken run of finished records; None if there is nothing to
            commit.
        last_read: timestamp of the record before ``position``, Unix milliseconds.
    """

    __slots__ = ("_finished", "_last", "_next", "_unfinished", "closed", "last_read", "position", "running")

    def __init__(self) -> None:
        self._unfinished: deque[tuple[int, int]] = deque()
        self._finished: set[int] = set()
        self._next: int | None = None
        self._last: int | None = None
        self.running = 0
        self.closed = False
        self.position: int | None = None
        self.last_read = 0

    @property
    def oldest(self) -> int | None:
        """Timestamp of the first unfinished record, Unix milliseconds; None if there is none."""
        return self._unfinished[0][1] if self._unfinished else None

    @property
    def last(self) -> int | None:
        """Offset of the record that was added last; None if there is none."""
        return self._last

    @property
    def count(self) -> int:
        """Number of records from the first unfinished one on, including finished ones among them."""
        return len(self._unfinished)

    @property
    def first_unfinished(self) -> int | None:
        """Offset of the first unfinished record, tracked or not; None if no record has been tracked yet."""
        return self._unfinished[0][0] if self._unfinished else self._next

    def has_finished(self, offset: int) -> bool:
        """Return True if the record at this offset is known to be finished."""
        first = self.first_unfinished
        return offset in self._finished or (first is not None and offset < first)

    def add(self, offset: int, timestamp: int) -> bool:
        """Track a record written to Kafka at ``timestamp``, Unix milliseconds. Offsets must ascend.

        Returns:
            True if records are missing between the one that was added last and this one.
        """
        gap = self._last is not None and offset > self._last + 1
        self._last = offset
        self._unfinished.append((offset, timestamp))
        return gap

    def begin_at(self, offset: int) -> None:
        """Have this offset committed, unless records have been finished already."""
        if self.position is None and self._next is None:
            self.position = offset

    def finish(self, offset: int) -> None:
        """Mark a record as finished and advance ``position`` past the unbroken run."""
        self._finished.add(offset)
        while self._unfinished and self._unfinished[0][0] in self._finished:
            first, self.last_read = self._unfinished.popleft()
            self._finished.discard(first)
            self.position = self._next = first + 1

    def successor(self) -> OffsetTracker:
        """Return a tracker for reading the partition again from ``first_unfinished``.

        It knows the finished records. The unfinished ones are added again when they have been read again.
        """
        successor = OffsetTracker()
        first = successor._next = self.first_unfinished
        successor._last = None if first is None else first - 1
        successor._finished = set(self._finished)
        successor.position, successor.last_read = self.position, self.last_read
        return successor
