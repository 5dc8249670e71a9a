"""How far may a partition's offset be committed? Only past records that are finished, whatever order they end in."""

from __future__ import annotations

from collections import deque


class OffsetTracker:
    """The records of one partition that are under way."""

    __slots__ = ("_finished", "_open", "closed", "position", "running")

    def __init__(self) -> None:
        self._open: deque[tuple[int, int]] = deque()
        self._finished: set[int] = set()
        self.running = 0
        """How many of them are being handled right now."""
        self.closed = False
        """The partition is being given away: none of them may begin any more."""
        self.position: int | None = None
        """What may be committed: the offset after the last of the records that are finished without a gap."""

    @property
    def oldest(self) -> int | None:
        """When the first record that is not finished was written, in Unix milliseconds; None while there is none."""
        return self._open[0][1] if self._open else None

    def take(self, offset: int, written_at: int) -> None:
        """A record is under way; offsets come in rising order.

        Args:
            offset: of the record.
            written_at: when it was, in Unix milliseconds.
        """
        self._open.append((offset, written_at))

    def finish(self, offset: int) -> None:
        """A record is done for good."""
        self._finished.add(offset)
        while self._open and self._open[0][0] in self._finished:
            first, _ = self._open.popleft()
            self._finished.discard(first)
            self.position = first + 1
