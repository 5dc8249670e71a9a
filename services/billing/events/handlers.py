"""How is an event of Stripe's taken in? It is kept, and whatever it hints at is ordered to be read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.events.models import EventRow, Outcome
from services.billing.stripe_api.payments import Lead
from shared.bus.work import Work
from shared.messages.billing.disputes import FollowDispute
from shared.messages.billing.payments import FindPayments, FollowPayment
from shared.messages.billing.runs import (
    ReplayStripeEvent,
)
from shared.messages.billing.stripe_events import (
    StripeEvent,
    StripeEventData,
    StripeObject,
    StripeReread,
    StripeThinEvent,
)
from shared.messages.billing.subscriptions import FollowSubscription


async def stripe_event(event: StripeEvent, work: Work, billing: Billing) -> None:
    """Keep an event, and have read what it is about; nothing it says is believed but its type and its object's id.

    It waits until that has been read. One reading covers all events that wait by then.
    """
    kept = EventRow.of(event, at=work.now)
    if await billing.events.find(kept.id) is not None:
        # Known from earlier than the inbox remembers; whoever wants it looked at again reopens it.
        return
    billing.events.add(looked_at(event, kept, work, billing), work)


def looked_at(event: StripeEvent, kept: EventRow, work: Work, billing: Billing) -> EventRow:
    """An event that waits, once what it hints at is ordered to be read; handled, if it hints at nothing."""
    outcome = _outcome_of(event, kept, work, billing)
    return kept if outcome is None else kept.handled(outcome, at=work.now, kept_for=billing.events_kept)


def _outcome_of(event: StripeEvent, kept: EventRow, work: Work, billing: Billing) -> Outcome | None:
    if metrics.count_other_mode("event", livemode=event.livemode, expected=billing.livemode, stripe_event=event.id):
        return "other_mode"
    hint = HINTS.get(event.type) if kept.object_id else None
    metrics.EVENTS.labels("other" if hint is None else event.type).inc()
    if hint is None:
        return "not_followed"
    work.publish(hint(kept.object_id, kept.id))
    return None


Hint = Callable[[str, str], StripeReread]
"""The order that an object's id and an event's lead to.

It goes under the id of what is to be read: so one reader at a time looks at it, whatever its events were ordered by.
"""


def _subscription(stripe_id: str, event_id: str) -> StripeReread:
    return FollowSubscription(key=stripe_id, subscription_id=stripe_id, event_id=event_id)


def _payment(stripe_id: str, event_id: str) -> StripeReread:
    return FollowPayment(key=stripe_id, payment_intent_id=stripe_id, event_id=event_id)


def _dispute(stripe_id: str, event_id: str) -> StripeReread:
    return FollowDispute(key=stripe_id, dispute_id=stripe_id, event_id=event_id)


def _part_of_payments(lead: Lead, stripe_id: str, event_id: str) -> StripeReread:
    return FindPayments(key=stripe_id, object=lead, object_id=stripe_id, event_id=event_id)


_charge = partial(_part_of_payments, "charge")


_refund = partial(_part_of_payments, "refund")


_invoice = partial(_part_of_payments, "invoice")


_invoice_payment = partial(_part_of_payments, "invoice_payment")


HINTS: Final[dict[str, Hint]] = {
    "customer.subscription.created": _subscription,
    "customer.subscription.updated": _subscription,
    "customer.subscription.deleted": _subscription,
    "customer.subscription.paused": _subscription,
    "customer.subscription.resumed": _subscription,
    "customer.subscription.trial_will_end": _subscription,
    "customer.subscription.pending_update_applied": _subscription,
    "payment_intent.created": _payment,
    "payment_intent.processing": _payment,
    "payment_intent.requires_action": _payment,
    "payment_intent.succeeded": _payment,
    "payment_intent.payment_failed": _payment,
    "payment_intent.canceled": _payment,
    "invoice.payment_action_required": _invoice,
    # A payment may be tied to an invoice long after it was made.
    "invoice_payment.paid": _invoice_payment,
    "charge.refunded": _charge,
    "charge.refund.updated": _refund,
    "refund.created": _refund,
    "refund.updated": _refund,
    "refund.failed": _refund,
    "charge.dispute.created": _dispute,
    "charge.dispute.updated": _dispute,
    "charge.dispute.closed": _dispute,
    "charge.dispute.funds_withdrawn": _dispute,
    "charge.dispute.funds_reinstated": _dispute,
}
"""Types that are not here are acknowledged, counted and kept: Stripe has many, and adds more."""


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


async def replay_stripe_event(command: ReplayStripeEvent, work: Work, billing: Billing) -> None:
    """Look at an event as if it came for the first time, whatever came of it before."""
    event = command.event.model_copy(update={"key": work.key})
    kept = await billing.events.find(EventRow.of(event, at=work.now).id)
    if kept is None:
        await stripe_event(event, work, billing)
        return
    billing.events.save(looked_at(event, kept.reopened(), work, billing), work)
