"""How is an event of Stripe's taken in? It is kept, and whatever it hints at is ordered to be read."""

from __future__ import annotations

from services.billing import alarms
from services.billing.context import Billing
from services.billing.handlers.hints import HINTS
from services.billing.models.events import KeptEvent, Outcome
from shared.bus.work import Work
from shared.messages.billing.stripe_events import StripeEvent


async def stripe_event(event: StripeEvent, work: Work, billing: Billing) -> None:
    """Keep an event, and have read what it is about; nothing it says is believed but its type and its object's id.

    It waits until that has been read. One reading covers all events that wait by then.
    """
    kept = KeptEvent.of(event, at=work.now)
    if await billing.events.find(kept.id) is not None:
        # Known from earlier than the inbox remembers; whoever wants it looked at again reopens it.
        return
    billing.events.add(looked_at(event, kept, work, billing), work)


def looked_at(event: StripeEvent, kept: KeptEvent, work: Work, billing: Billing) -> KeptEvent:
    """An event that waits, once what it hints at is ordered to be read; handled, if it hints at nothing."""
    outcome = _outcome_of(event, kept, work, billing)
    return kept if outcome is None else kept.handled(outcome, at=work.now, kept_for=billing.events_kept)


def _outcome_of(event: StripeEvent, kept: KeptEvent, work: Work, billing: Billing) -> Outcome | None:
    if alarms.is_of_other_mode("event", livemode=event.livemode, ours=billing.livemode, stripe_event=event.id):
        return "other_mode"
    hint = HINTS.get(event.type) if kept.object_id else None
    alarms.EVENTS.labels("other" if hint is None else event.type).inc()
    if hint is None:
        return "not_followed"
    work.publish(hint(kept.object_id, kept.id))
    return None
