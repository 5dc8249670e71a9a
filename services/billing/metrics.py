"""Prometheus metrics of billing: counters of unusual events, and gauges of drift, pending events and finished runs.

Every instance reads the gauges from the database, so all instances report the same values, whichever of them handled
the last step of a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from prometheus_client import Counter, Gauge

from services.billing.events.models import EventRow
from services.billing.events.store import StripeEvents
from services.billing.runs.models import KINDS, count_by_kind
from services.billing.runs.store import KnownDrifts, Runs
from shared.bus.work import Work
from shared.messages.billing.stripe_events import EVENT_TYPES
from shared.telemetry import log

EVENTS: Final = Counter(
    "nest_stripe_events",
    "Stripe events by type and outcome, counted when an event is no longer pending. Types without a handler are other.",
    ["type", "outcome"],
)
OTHER_MODE: Final = Counter(
    "nest_stripe_other_mode", "Events and objects of the other mode, live or test, that were ignored."
)
LEFT_ALONE: Final = Counter(
    "nest_stripe_left_alone",
    "Events and readings of other_account (connected accounts) and other_product (NEST_STRIPE_PRODUCTS).",
    ["reason"],
)
UNKNOWN_STATUSES: Final = Counter(
    "nest_stripe_unknown_statuses", "Subscriptions stored with a status unknown to Nest, which entitles to nothing."
)
NOBODY: Final = Counter("nest_stripe_subscriptions_of_nobody", "Subscriptions for which no user was found.")
MISSING: Final = Counter("nest_stripe_subscriptions_missing", "Subscriptions read that do not exist in Stripe.")
UNKNOWN_PAYMENT_STATUSES: Final = Counter(
    "nest_stripe_unknown_payment_statuses", "Payments and disputes stored with a status unknown to Nest."
)
MISSING_PAYMENTS: Final = Counter(
    "nest_stripe_payments_missing", "Payments and disputes read that do not exist in Stripe."
)
DISPUTES_WITHOUT_MAIL: Final = Counter(
    "nest_disputes_untold",
    "Disputes opened or closed without a mail to operators, because NEST_OPERATORS_ADDRESS is not set.",
)
DUPLICATES: Final = Counter(
    "nest_stripe_duplicate_subscriptions",
    "Second live subscriptions of a user, by reaction: cancelled, or told (announced only).",
    ["done"],
)
ANONYMOUS_OBJECTS: Final = Counter(
    "nest_stripe_anonymous_objects",
    "Customers and subscriptions created in Stripe for trials that somebody ordered and nobody has redeemed yet.",
    ["object"],
)
TRIALS_UNDONE: Final = Counter("nest_trials_undone", "Trials undone because nobody redeemed their link.")
NOT_REFUNDED: Final = Counter(
    "nest_stripe_not_refunded", "Payments of cancelled duplicate subscriptions that could not be refunded."
)
USAGE: Final = Counter(
    "nest_usage_settled",
    "Entries of usage by outcome: sent to Stripe, refused by Stripe, or expired while Stripe was away.",
    ["outcome"],
)
USAGE_ERROR_REPORTS: Final = Counter(
    "nest_usage_error_reports", "Reports of Stripe about usage that it rejected after it had accepted it."
)
DRIFT: Final = Gauge(
    "nest_stripe_drift", "Records known to differ from Stripe, by object and kind of difference.", ["object", "kind"]
)
DRIFT_SINCE: Final = Gauge(
    "nest_stripe_drift_since_timestamp_seconds", "When the oldest of these differences was found; 0 without any."
)
RUN_FINISHED: Final = Gauge(
    "nest_stripe_run_finished_timestamp_seconds", "When the last run of a kind finished; 0 for never.", ["kind"]
)
PENDING_EVENTS: Final = Gauge("nest_stripe_events_waiting", "Stripe events whose object has not been read yet.")
PENDING_EVENTS_SINCE: Final = Gauge(
    "nest_stripe_events_waiting_since_timestamp_seconds", "When the oldest pending event was received; 0 without any."
)
UPDATE_SECONDS: Final = 30.0
"""Interval between two updates of the gauges."""


def count_other_mode(subject: str, *, livemode: bool, expected: bool, **fields: str) -> bool:
    """Whether an event or object belongs to the other mode, live or test; if so, count and log it."""
    if livemode == expected:
        return False
    OTHER_MODE.inc()
    log.error(f"{subject} of the other mode", livemode=livemode, **fields)
    return True


def count_event(row: EventRow, work: Work) -> None:
    """Count a settled event once the work is committed."""
    work.count(EVENTS.labels(row.type if row.type in EVENT_TYPES else "other", row.outcome))


@asynccontextmanager
async def updated_gauges(runs: Runs, known_drift: KnownDrifts, events: StripeEvents) -> AsyncIterator[None]:
    """Update the gauges every ``UPDATE_SECONDS`` while the block runs."""
    stopping = asyncio.Event()
    task = asyncio.create_task(_keep_updating(runs, known_drift, events, stopping))
    try:
        yield
    finally:
        # Cancelling alone is not enough: pymongo turns a cancellation into a lost connection.
        stopping.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def update_gauges(runs: Runs, known_drift: KnownDrifts, events: StripeEvents) -> None:
    """Set the gauges to the values in the database."""
    drift = await known_drift.all()
    DRIFT.clear()
    for (subject, kind), count in count_by_kind(drift).items():
        DRIFT.labels(subject, kind).set(count)
    DRIFT_SINCE.set(min((each.found_at.timestamp() for each in drift), default=0))
    for run_kind in KINDS:
        run = await runs.latest_done(run_kind)
        finished = None if run is None else run.finished_at
        RUN_FINISHED.labels(run_kind).set(0 if finished is None else finished.timestamp())
    pending, since = await events.count_pending()
    PENDING_EVENTS.set(pending)
    PENDING_EVENTS_SINCE.set(0 if since is None else since.timestamp())


async def _keep_updating(runs: Runs, known_drift: KnownDrifts, events: StripeEvents, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        try:
            await update_gauges(runs, known_drift, events)
        except Exception as failure:  # noqa: BLE001 -- the database may be unreachable for a while
            log.warning("gauges not updated", error=type(failure).__name__)
        with suppress(TimeoutError):
            async with asyncio.timeout(UPDATE_SECONDS):
                await stopping.wait()
