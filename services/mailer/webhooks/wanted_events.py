"""Events that some endpoint has chosen, known to every instance, so that all other events cost nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from services.mailer.webhooks.events import SOURCES
from services.mailer.webhooks.models import Endpoint
from services.mailer.webhooks.store import Endpoints
from shared.bus.background_task import BackgroundTask
from shared.mongo import dependency_down
from shared.telemetry import log

RELOAD_SECONDS: Final = 0.3
"""Interval of reading the endpoints while events arrive."""
MAX_AGE_SECONDS: Final = 1.0
"""Age up to which the read endpoints count. A new or changed endpoint is confirmed to its operator only after it."""


class WantedEvents(BackgroundTask):
    """The events that the enabled endpoints have chosen, read from MongoDB several times a second while events arrive.

    Events are skipped only while this is certain: if the endpoints could not be read lately, every event is handled,
    and its handler reads them. ``clock`` is monotonic.
    """

    def __init__(self, endpoints: Endpoints, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_age = MAX_AGE_SECONDS
        self._endpoints = endpoints
        self._clock = clock
        self._read_at = float("-inf")
        self._wanted: frozenset[str] = frozenset()
        self._stopping = asyncio.Event()
        self._asked = asyncio.Event()

    def skips(self, wire: str) -> bool:
        """Return True if no endpoint has chosen a type that the event with this wire name leads to."""
        self._asked.set()
        return wire in _WIRES and wire not in self._wanted and self._clock() - self._read_at < self.max_age

    async def reload(self) -> None:
        """Read the endpoints.

        Raises:
            PyMongoError: MongoDB is unavailable.
        """
        # The age counts from before the read: an endpoint may be added during it.
        began = self._clock()
        self._wanted = wanted(await self._endpoints.enabled())
        self._read_at = began

    async def stop(self) -> None:
        """Stop reading."""
        # Cancelling alone is not enough: pymongo turns it into a connection error, after which the loop would go on.
        self._stopping.set()
        await super().stop()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.reload()
            except Exception as failure:  # noqa: BLE001 -- one failed read must not end the loop
                if dependency_down(failure):
                    log.warning("webhook endpoints not read", error=type(failure).__name__)
                else:
                    log.exception("webhook endpoints not read")
            await asyncio.sleep(RELOAD_SECONDS)
            await self._asked.wait()
            self._asked.clear()


_WIRES: Final = frozenset(kind.wire for kind in SOURCES)


def wanted(endpoints: list[Endpoint]) -> frozenset[str]:
    """Return the wire names of the events that lead to a type which one of the endpoints has chosen."""
    return frozenset(
        kind.wire
        for kind, event_types in SOURCES.items()
        if any(endpoint.wants(event_type) for endpoint in endpoints for event_type in event_types)
    )
