"""Metrics of a process: its versions, and how long everything in it waits while one piece of code runs."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Final

from shared.bus.background_task import BackgroundTask
from shared.metrics import BUILD, EVENT_LOOP_DELAY

INTERVAL_SECONDS: Final = 1.0
"""Interval of the measurements; a shorter delay may fall between two of them, a longer one is always seen."""


class EventLoopDelay(BackgroundTask):
    """Measures how late a timer of the event loop is, once a second, and exports it.

    Args:
        service: service name, for metrics.
        interval: seconds between two measurements.
    """

    def __init__(self, service: str, interval: float = INTERVAL_SECONDS) -> None:
        self._delay = EVENT_LOOP_DELAY.labels(service)
        self._interval = interval

    async def _run(self) -> None:
        while True:
            due = time.monotonic() + self._interval
            await asyncio.sleep(self._interval)
            self._delay.observe(max(0.0, time.monotonic() - due))


@asynccontextmanager
async def process_metrics(service: str) -> AsyncIterator[None]:
    """Export the metrics of this process while the context is entered."""
    BUILD.labels(service, metadata.version("nest"), platform.python_version()).set(1)
    delay = EventLoopDelay(service)
    delay.start()
    try:
        yield
    finally:
        await delay.stop()
