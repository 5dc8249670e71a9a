"""Limit of log entries during outages: one per dependency and ten seconds, however many tasks retry.

Every consumer, producer and topic reader of a process has its own Kafka client, and each logs every attempt.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

KAFKA: Final = "Kafka"
FIRST_SECONDS: Final = 10.0
LONGEST_SECONDS: Final = 60.0
"""The interval doubles up to here while an outage lasts."""
EVENTS: Final = {
    "bus down": KAFKA,
    "clock not compared": KAFKA,
    "consumer lag not measured": KAFKA,
    "expired records not checked": KAFKA,
    "growth order not obeyed": KAFKA,
    "offsets not committed": KAFKA,
    "outage notices interrupted": KAFKA,
    "reply lost": KAFKA,
    "topic reader interrupted": KAFKA,
    "abandoned transactions not killed": "MongoDB",
    "dependency unavailable": "MongoDB",
    "gauges not updated": "MongoDB",
    "news items not reloaded": "MongoDB",
    "rate limits use local counts only": "MongoDB",
    "rate-limit counts not exchanged": "MongoDB",
    "signing keys not read": "MongoDB",
    "webhook endpoints not read": "MongoDB",
    "unauthenticated record ignored": "records",
}
"""Entries that an outage or a foreign writer repeats, and the dependency whose limit they share."""
LIBRARIES: Final = {"aiokafka": KAFKA, "faststream": KAFKA, "opentelemetry": "traces", "pymongo": "MongoDB"}
"""Loggers of clients, with everything below them."""


@dataclass(slots=True)
class _Limit:
    last_at: float = 0.0
    next_at: float = 0.0
    seconds: float = FIRST_SECONDS / 2
    suppressed: int = 0


class LogLimiter(logging.Filter):
    """Filter of a log handler that passes the first entry about an outage, and then one per interval.

    An entry that follows suppressed ones has their number as ``suppressed``. Other entries pass.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._limits: dict[str, _Limit] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether an entry passes."""
        dependency = _dependency(record)
        if dependency is None:
            return True
        limit, now = self._limits.setdefault(dependency, _Limit()), self._clock()
        quiet, limit.last_at = now - limit.last_at, now
        if quiet >= FIRST_SECONDS:
            # The outage before is over.
            limit.next_at, limit.seconds = now, FIRST_SECONDS / 2
        if now < limit.next_at:
            limit.suppressed += 1
            return False
        limit.seconds = min(2 * limit.seconds, LONGEST_SECONDS)
        limit.next_at = now + limit.seconds
        if limit.suppressed:
            _add_field(record, limit.suppressed)
            limit.suppressed = 0
        return True


def _dependency(record: logging.LogRecord) -> str | None:
    if isinstance(record.msg, dict):
        return EVENTS.get(record.msg.get("event", ""))
    return LIBRARIES.get(record.name.partition(".")[0])


def _add_field(record: logging.LogRecord, suppressed: int) -> None:
    if isinstance(record.msg, dict):
        record.msg["suppressed"] = suppressed
    else:
        record.msg, record.args = f"{record.getMessage()} (suppressed={suppressed})", ()
