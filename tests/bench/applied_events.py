"""When billing has applied Stripe's events: their rows have an outcome, in the commit that stores the read object."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from pymongo import AsyncMongoClient

APPLIED_SECONDS: Final = 60.0
_SETTLED: Final = [
    {"$match": {"fullDocument.handledAt": {"$ne": None}}},
    {"$project": {"fullDocument.stpEventId": 1}},
]


class AppliedEvents:
    """Follows the collection of events with a change stream, which shows majority-committed rows only.

    Args:
        mongo: URL of the database.
    """

    def __init__(self, mongo: str) -> None:
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo)
        self._billing = self._client["nest_billing"]
        self._waiting: dict[str, asyncio.Future[float]] = {}

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Follow the collection while the context is entered."""
        async with await self._billing["stripe_events"].watch(_SETTLED, full_document="updateLookup") as stream:

            async def follow() -> None:
                async for change in stream:
                    done = self._waiting.pop(change["fullDocument"]["stpEventId"], None)
                    if done is not None:
                        done.set_result(time.perf_counter())

            following = asyncio.create_task(follow())
            try:
                yield
            finally:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await following
        await self._client.close()

    def expect(self, event_id: str) -> asyncio.Future[float]:
        """The time (`time.perf_counter`) at which an event will have been applied; call it before sending the event."""
        self._waiting[event_id] = applied = asyncio.get_running_loop().create_future()
        return applied

    async def settled(self) -> None:
        """Wait until no event is pending, also of those that earlier operations have caused."""
        async with asyncio.timeout(APPLIED_SECONDS):
            while await self._billing["stripe_events"].count_documents({"handledAt": None}):  # noqa: ASYNC110 -- the state of another process
                await asyncio.sleep(0.2)

    async def subscriptions(self) -> list[str]:
        """Stripe's IDs of all subscriptions."""
        rows = self._billing["subscriptions"].find({}, {"stpSubscriptionId": 1})
        return [row["stpSubscriptionId"] async for row in rows]
