"""How do many events about one object cause one reading? They wait for it, and it covers all that waited when it began.

An event is handled in the commit that stores what was read, and not before: it waits, or it was followed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from services.billing.context import Billing
from services.billing.events.models import EventRow, Outcome
from services.billing.stripe_api.reschedule import put_off
from shared.bus.work import Work
from shared.messages.billing.errors import StripeUnavailable
from shared.messages.billing.stripe_events import StripeReread

Read = Callable[[Sequence[EventRow]], Awaitable[Outcome | None]]


async def read_for(order: StripeReread, object_id: str, read: Read, work: Work, billing: Billing) -> None:
    """Do as an order to read something says, unless a reading that began later has; later, if Stripe can't be asked.

    Args:
        order: of which many may come at once, each for its event.
        object_id: Stripe's id of what is to be read.
        read: reads it, stores what it finds, and tells what came of the events that it is given, which waited before;
            None when they go on waiting.
        work: what is done about it.
        billing: where.
    """
    hints = await billing.events.pending_of(object_id)
    if order.event_id is not None and all(hint.id != order.event_id for hint in hints):
        return
    try:
        outcome = await read(hints)
    except StripeUnavailable:
        put_off(order, work)
        return
    if outcome is not None:
        for hint in hints:
            billing.events.save(hint.handled(outcome, at=work.now, kept_for=billing.events_kept), work)
