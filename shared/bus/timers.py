"""How does a message wait for its time? As a row committed with the work that ordered it, put on Kafka when it is due.

A row is published under a fixed id and then removed; a crash between the two publishes it again under the same id, and
the receiver's inbox absorbs the repeat. Any number of instances may look after one collection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from pymongo import ASCENDING, ReturnDocument

from shared.bus.envelope import unix_milliseconds
from shared.bus.inbox import Inbox
from shared.bus.producer import BusDown, Producer
from shared.bus.row_encryption import RowEncryption
from shared.fault_points import fault_point
from shared.mongo import Collection, Database, dependency_down
from shared.telemetry import TIMERS_DUE, log

POLL_SECONDS: Final = 0.5
LEASE: Final = timedelta(seconds=30)
"""How long an instance has for publishing a row before another one may take it."""


class Timers:
    """Puts the due messages of one service on Kafka.

    Args:
        database: the service's database.
        producer: where they leave.
        service: for metrics.
        keeping: what rows keep of messages.
        clock: the time; injected by tests.
    """

    def __init__(
        self,
        database: Database,
        producer: Producer,
        *,
        service: str,
        keeping: RowEncryption,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._rows: Collection = database[Inbox.TIMERS]
        self._producer = producer
        self._keeping = keeping
        self._published = TIMERS_DUE.labels(service)
        self._clock = clock
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look for due rows twice a second."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop looking; a row under way stays, or goes out twice under one id."""
        # Cancelling is not enough: pymongo makes a lost connection of it, after which we would look again.
        self._stopping.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def publish_due(self) -> int:
        """Publish every row that is due now; returns how many.

        Raises:
            BusDown, PyMongoError: a dependency is away; what was not published stays.
        """
        count = 0
        while not self._stopping.is_set():
            now = self._clock()
            row = await self._rows.find_one_and_update(
                {"at": {"$lte": now}},
                # The lease is a later due time: whoever dies with it leaves the row to be found again.
                {"$set": {"at": now + LEASE}},
                sort=[("at", ASCENDING)],
                return_document=ReturnDocument.AFTER,
            )
            if row is None:
                break
            envelope = self._keeping.message(row)
            # Readers refuse what is older than their inbox; a message for later is made when it leaves.
            envelope.time = unix_milliseconds()
            await self._producer.send(envelope)
            fault_point("T1")
            await self._rows.delete_one({"_id": row["_id"]})
            self._published.inc()
            count += 1
        return count

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.publish_due()
            except BusDown as down:
                log.warning("bus down", error=str(down))
            except Exception as failure:  # noqa: BLE001 -- a row in trouble must not end the looking
                if dependency_down(failure):
                    log.warning("dependency away", error=type(failure).__name__)
                else:
                    log.exception("timers failed")
            await asyncio.sleep(POLL_SECONDS)
