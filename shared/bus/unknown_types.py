"""Messages of types that only another release knows.

A deployment runs two releases side by side. A message that only the newer one knows may be on a partition of an
instance of the older one. It waits there, with the messages of its key, until an instance of the newer release gets the
partition. Its offset is not committed before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shared.bus.envelope import Envelope, Record
from shared.bus.keyed_executor import Postponed
from shared.metrics import UNKNOWN_TYPES
from shared.telemetry import log

PAUSES: Final = (1.0, 60.0)
"""First and longest pause between two attempts, seconds. Each is twice as long as the one before."""


@dataclass(slots=True)
class _Wait:
    """Since when a message waits, monotonic seconds, and its next pause in seconds."""

    since: float
    pause: float


class UnknownTypes:
    """The messages of unknown types that wait in one process.

    Args:
        service: service name, for metrics.
        seconds: how long each waits.
    """

    def __init__(self, service: str, seconds: float) -> None:
        self._seconds = seconds
        self._waits: dict[tuple[str, int, int], _Wait] = {}
        UNKNOWN_TYPES.labels(service).set_function(self._waits.__len__)

    def wait(self, record: Record, envelope: Envelope, on_first: Callable[[], object]) -> None:
        """Postpone a message; return if it has waited for long enough. Calls ``on_first`` at its first attempt.

        Raises:
            Postponed: it waits.
        """
        place = envelope.topic, record.partition, record.offset
        wait = self._waits.get(place)
        if wait is None:
            wait = self._waits[place] = _Wait(time.monotonic(), PAUSES[0])
            on_first()
        remaining = wait.since + self._seconds - time.monotonic()
        if remaining <= 0:
            del self._waits[place]
            return
        log.error(
            "unknown message type waits",
            type=envelope.wire,
            id=envelope.id,
            topic=envelope.topic,
            partition=record.partition,
            offset=record.offset,
            seconds_left=round(remaining),
        )
        pause, wait.pause = wait.pause, min(2 * wait.pause, PAUSES[1])
        raise Postponed(min(pause, remaining))

    def forget(self, record: Record, topic: str) -> None:
        """Forget a message that this process will not handle."""
        self._waits.pop((topic, record.partition, record.offset), None)

    def clear(self) -> None:
        """Forget all messages: this process handles nothing more."""
        self._waits.clear()
