"""What does a thin event hint at? The same as the snapshot beside it, which says more than is believed anyway."""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.handlers.webhooks import stripe_event
from shared.bus.work import Work
from shared.messages.billing.stripe_events import StripeEvent, StripeEventData, StripeObject, StripeThinEvent

PREFIX = "v1."
"""Leads the types of those thin events that tell of what a snapshot tells of too
(https://docs.stripe.com/webhooks/migrate-snapshot-to-thin-events)."""


async def stripe_thin_event(event: StripeThinEvent, work: Work, billing: Billing) -> None:
    """Look at what a thin event is about, as if its snapshot had come."""
    related = event.related_object
    subject = StripeObject() if related is None else StripeObject(object=related.type, id=related.id)
    snapshot = StripeEvent(
        key=work.key,
        # Its own id: whether the two of one change are known to be one matters to nobody, reading twice does no harm.
        id=event.id,
        type=event.type.removeprefix(PREFIX),
        livemode=event.livemode,
        account=event.context,
        data=StripeEventData(object=subject),
    )
    await stripe_event(snapshot, work, billing)
