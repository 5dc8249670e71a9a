"""Outbox timers: delayed messages, each a row that was committed with the work that published it.

When a row is due, its message is sent under a fixed message ID. After a crash meanwhile it is sent again under the same
ID, and the receiver's inbox absorbs it. The row is deleted once every consumer group has passed the message, so that it
can be sent again if Kafka loses it. Several instances may process one collection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from pymongo import ASCENDING, ReturnDocument

from shared.bus.background_task import BackgroundTask
from shared.bus.envelope import unix_milliseconds
from shared.bus.inbox import Inbox
from shared.bus.producer import BusDown, Producer
from shared.bus.row_encryption import RowEncryption
from shared.bus.sent_messages import SentMessages
from shared.fault_points import fault_point
from shared.metrics import TIMERS_DUE, TIMERS_DUE_SINCE, TIMERS_PUBLISHED
from shared.mongo import Collection, Database, dependency_down
from shared.telemetry import log

POLL_SECONDS: Final = 5.0
"""Longest pause between two looks for the next row. Rows of this process and those of which a look knows are sent when
they are due; so this delays only a row of another process that has ended before the row was due."""
RETRY_SECONDS: Final = 0.5
"""Pause after a failure, and while paused."""
LEASE: Final = timedelta(seconds=30)
"""How long an instance has to send a row's message before another instance may take the row."""
COUNT_SECONDS: Final = 15.0
"""Interval of counting the due rows, for metrics."""
EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
LATEST: Final = datetime.max.replace(tzinfo=UTC)
MAX_COUNTED: Final = 10_000
"""Largest count of due rows; so counting stays cheap after a long outage."""


class TimerWakeups:
    """Wakes the timers of a process for rows that it commits."""

    def __init__(self) -> None:
        self._next = LATEST
        self._earlier = asyncio.Event()

    def add(self, at: datetime) -> None:
        """Wake them at this time, or earlier."""
        if at < self._next:
            self._next = at
            self._earlier.set()

    def forget(self) -> None:
        """Forget the times added so far, because all rows are looked at."""
        self._next = LATEST

    async def wait(self, seconds: float, clock: Callable[[], datetime]) -> bool:
        """Wait until the earliest time that is added, for some seconds at most; return whether it has come."""
        until = clock() + timedelta(seconds=seconds)
        while True:
            self._earlier.clear()
            try:
                async with asyncio.timeout(min(seconds, (min(self._next, until) - clock()).total_seconds())):
                    await self._earlier.wait()
            except TimeoutError:
                return self._next <= until


class Timers(BackgroundTask):
    """Sends the due messages of one service, from the rows in its database; while ``paused`` the rows stay.

    ``sent`` deletes the rows of messages that consumer groups read; without it they are deleted at once. ``wakeups``
    learns the times of rows that this process commits; without it they are found up to ``POLL_SECONDS`` later.
    """

    def __init__(
        self,
        database: Database,
        producer: Producer,
        *,
        service: str,
        encryption: RowEncryption,
        sent: SentMessages | None = None,
        wakeups: TimerWakeups | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._rows: Collection = database[Inbox.TIMERS]
        self._producer = producer
        self._encryption = encryption
        self._published = TIMERS_PUBLISHED.labels(service)
        self._due = TIMERS_DUE.labels(service)
        self._due_since = TIMERS_DUE_SINCE.labels(service)
        self._next_count = 0.0
        self._sent = sent
        self._wakeups = wakeups or TimerWakeups()
        self._clock = clock
        self._paused = paused
        self._stopping = asyncio.Event()

    async def stop(self) -> None:
        """Stop polling. A row whose message is being sent stays, and its message may be sent twice."""
        # Cancelling alone is not enough: pymongo turns it into a connection error, after which the loop would go on.
        self._stopping.set()
        self._wakeups.add(EARLIEST)
        await super().stop()

    async def publish_due(self) -> int:
        """Send the messages of all due rows; return their number.

        Raises:
            BusDown, PyMongoError: a dependency is unavailable; the remaining rows stay.
        """
        count = 0
        while not (self._stopping.is_set() or self._paused()):
            now = self._clock()
            if time.monotonic() >= self._next_count:
                await self._count_due(now)
            row = await self._rows.find_one_and_update(
                {"at": {"$lte": now}},
                # The lease is a later due time, so the row of a crashed instance becomes due again.
                [{"$set": {"at": now + LEASE, "dueAt": {"$ifNull": ["$dueAt", "$at"]}}}],
                sort=[("at", ASCENDING)],
                return_document=ReturnDocument.AFTER,
            )
            if row is None:
                break
            envelope = self._encryption.message_of(row)
            # Receivers reject messages older than their inbox; the age of a delayed message counts from here.
            envelope.time = unix_milliseconds()
            positions = await self._producer.send(envelope)
            fault_point("T1")
            # A timer that was ordered anew meanwhile has another due time.
            this = {"_id": row["_id"], "at": row["at"]}
            if self._sent is not None and self._sent.follows(envelope):
                await self._rows.update_one(this, {"$set": {"sentAt": now}, "$unset": {"at": "", "dueAt": ""}})
                self._sent.add_timer(row["_id"], positions)
            else:
                await self._rows.delete_one(this)
            self._published.inc()
            count += 1
        return count

    async def _count_due(self, now: datetime) -> None:
        """Export how many rows are due, leased or not, and since when."""
        self._next_count = time.monotonic() + COUNT_SECONDS
        found = await self._rows.aggregate(
            [
                # The first condition is for the index.
                {"$match": {"at": {"$lte": now + LEASE}, "$or": [{"at": {"$lte": now}}, {"dueAt": {"$lte": now}}]}},
                {"$limit": MAX_COUNTED},
                {"$group": {"_id": None, "count": {"$sum": 1}, "since": {"$min": {"$ifNull": ["$dueAt", "$at"]}}}},
            ]
        )
        groups = await found.to_list()
        self._due.set(groups[0]["count"] if groups else 0)
        self._due_since.set(groups[0]["since"].timestamp() if groups else 0)

    async def _look(self) -> None:
        """Wake up again when the next row is due, and export how many rows are."""
        now = self._clock()
        # A leased row may be due too.
        first = await self._rows.find_one({"at": {"$lt": now + LEASE}}, {"_id": 0, "at": 1}, sort=[("at", ASCENDING)])
        if first is None:
            self._due.set(0)
            self._due_since.set(0)
            return
        self._wakeups.add(first["at"])
        if time.monotonic() >= self._next_count:
            await self._count_due(now)

    async def _run(self) -> None:
        due = True
        while not self._stopping.is_set():
            self._wakeups.forget()
            looked = False
            try:
                if due:
                    await self.publish_due()
                if not self._paused():
                    await self._look()
                    looked = True
            except BusDown as down:
                log.warning("bus down", error=str(down))
            except Exception as failure:  # noqa: BLE001 -- one bad row must not end the polling
                if dependency_down(failure):
                    log.warning("dependency unavailable", error=type(failure).__name__)
                else:
                    log.exception("timers failed")
            come = await self._wakeups.wait(POLL_SECONDS if looked else RETRY_SECONDS, self._clock)
            due = come or not looked
