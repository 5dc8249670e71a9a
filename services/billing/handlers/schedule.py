"""When does the clock begin a run over the Stripe account? One instance at a time, however many there are."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from services.billing.context import Billing
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import iso_milliseconds
from shared.messages.billing.runs import (
    SCHEDULE,
    KeepStripeSchedule,
    ReconcileSubscriptions,
    Scheduled,
    SweepStripeEvents,
)

TWICE: Final = 2
"""A comparison of what Stripe told of lately goes back to before the one before it."""


async def keep_stripe_schedule(command: KeepStripeSchedule, work: Work, billing: Billing) -> None:
    """Begin the run that is due, and leave an order for the next time; those of a start end in the same one."""
    period = billing.periods.get(command.kind)
    if period is None:
        return
    at = work.now if command.due is None else max(work.now, command.due)
    held = await billing.schedule.find(command.kind)
    # A period that was made shorter counts at once; the first run ever waits for its time too.
    next_at: datetime = at + period if held is None else min(held["nextAt"], at + period)
    if held is not None and at >= held["nextAt"]:
        _order(command.kind, work, billing)
        next_at = at + period
    if held is None or held["nextAt"] != next_at:
        billing.schedule.set(command.kind, next_at, held, work)
    work.publish(
        KeepStripeSchedule(key=SCHEDULE, kind=command.kind, due=next_at),
        at=next_at,
        id=derived_message_id("stripe-schedule", command.kind, iso_milliseconds(next_at)),
    )


def _order(kind: Scheduled, work: Work, billing: Billing) -> None:
    """Order a run, as an operator does; it is refused while another of its kind is under way."""
    match kind:
        case "sweep":
            work.publish(SweepStripeEvents(key=kind))
        case "verify_lately":
            hours = TWICE * int(billing.periods[kind].total_seconds()) // 3600
            work.publish(ReconcileSubscriptions(key=kind, repair=False, changed_within_hours=hours))
        case "verify":
            work.publish(ReconcileSubscriptions(key=kind, repair=False))
