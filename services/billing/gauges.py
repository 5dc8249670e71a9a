"""What is said to whoever watches: how much waits or differs, since when, and when it was looked last?

Every instance reads it from the database: whichever of them moved the last step of a run, all say the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from prometheus_client import Gauge

from services.billing.models.drift import by_kind
from services.billing.models.runs import KINDS
from services.billing.store.differences import Standings
from services.billing.store.events import StripeEvents
from services.billing.store.runs import Runs
from shared.telemetry import log

SECONDS: Final = 15.0
DRIFT: Final = Gauge(
    "nest_stripe_drift", "Records that are known not to be as Stripe says, by object and kind.", ["object", "kind"]
)
SINCE: Final = Gauge(
    "nest_stripe_drift_since_timestamp_seconds", "When the oldest of them was found; 0 while there is none."
)
LAST: Final = Gauge(
    "nest_stripe_run_finished_timestamp_seconds", "When the last run of a kind came to its end; 0 for never.", ["kind"]
)
WAITING: Final = Gauge("nest_stripe_events_waiting", "Events of which nothing has come yet.")
WAITING_SINCE: Final = Gauge(
    "nest_stripe_events_waiting_since_timestamp_seconds", "When the oldest of them came in; 0 while there is none."
)


@asynccontextmanager
async def kept(runs: Runs, standings: Standings, events: StripeEvents) -> AsyncIterator[None]:
    """Keeps the gauges up to date for as long as the block lasts."""
    stopping = asyncio.Event()
    task = asyncio.create_task(_keep(runs, standings, events, stopping))
    try:
        yield
    finally:
        # Cancelling is not enough: pymongo makes a lost connection of it.
        stopping.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def tell(runs: Runs, standings: Standings, events: StripeEvents) -> None:
    """Set the gauges to what the database says."""
    found = await standings.all()
    DRIFT.clear()
    for (subject, kind), count in by_kind(found).items():
        DRIFT.labels(subject, kind).set(count)
    SINCE.set(min((each.found_at.timestamp() for each in found), default=0))
    for kind in KINDS:
        run = await runs.latest_done(kind)
        finished = None if run is None else run.finished_at
        LAST.labels(kind).set(0 if finished is None else finished.timestamp())
    count, since = await events.waiting()
    WAITING.set(count)
    WAITING_SINCE.set(0 if since is None else since.timestamp())


async def _keep(runs: Runs, standings: Standings, events: StripeEvents, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            await tell(runs, standings, events)
        except Exception as failure:  # noqa: BLE001 -- the database may be away for a while
            log.warning("gauges not read", error=type(failure).__name__)
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                await stopping.wait()
