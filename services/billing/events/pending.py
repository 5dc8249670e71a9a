"""Pending events: one reading of a Stripe object settles all events about it that were pending when the reading began.

An event is settled in the commit that records the reading. It is therefore either pending, or its object was recorded
after the event was received.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from services.billing import metrics
from services.billing.context import Billing
from services.billing.disputes.models import Dispute
from services.billing.events.models import EventRow, Outcome
from services.billing.payments.models import Payment
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.reschedule import reschedule
from shared.bus.work import Work
from shared.messages.billing.errors import StripeUnavailable
from shared.messages.billing.stripe_events import StripeReread


async def pending_events(command: StripeReread, object_id: str, billing: Billing) -> list[EventRow] | None:
    """The pending events that a command's reading settles; the command was ordered for one event or for none.

    None if a later reading has settled the command's event already: then this reading is not needed.
    """
    rows = await billing.events.pending_of(object_id)
    if command.event_id is not None and all(row.id != command.event_id for row in rows):
        return None
    return rows


def settle(rows: Sequence[EventRow], outcome: Outcome, work: Work, billing: Billing) -> None:
    """Record the outcome of events with the reading that they waited for."""
    for row in rows:
        settled = row.settled(outcome, at=work.now, retention=billing.event_retention)
        billing.events.save(settled, work)
        metrics.count_event(settled, work)


async def follow(
    command: StripeReread,
    object_id: str,
    sync: Callable[[str, Work, Billing], Awaitable[Outcome | Dispute | Payment]],
    work: Work,
    billing: Billing,
) -> None:
    """Read an object from Stripe, and settle the pending events about it; again later if Stripe is unavailable.

    Args:
        command: the command for the reading.
        object_id: Stripe's ID of the object.
        sync: reads and records it; returns the record, or the outcome of the events.
        work: of the command.
        billing: the context.
    """
    pending = await pending_events(command, object_id, billing)
    if pending is None:
        return
    try:
        read = await sync(object_id, work, billing)
    except StripeUnavailable:
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(stripe_id=object_id)
        read = "refused"
    settle(pending, "read" if isinstance(read, Dispute | Payment) else read, work, billing)
