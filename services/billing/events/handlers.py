"""Handlers of Stripe events, by Stripe's event type.

An event is processed in two steps:

1. ``stripe_event`` stores it as a pending event row. The handler of its type returns the command that reads its object.
   The command is keyed by the object's ID, so one handler at a time reads an object, whatever events caused this.
2. The handler of that command (``follow_subscription``, ``follow_payment``, ``find_payments``, ``follow_dispute``)
   loads the events that are pending for the object, reads the object from Stripe once, records it, and settles the
   events.

Only the type of the event and the object's ID are used, since the rest may be outdated when the event arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.events.models import EventRow, entitlements_of
from services.billing.events.store import MAX_OBJECTS
from services.billing.payments.store import PageQuery
from services.billing.stripe_api.account import PaymentPart
from shared.bus.work import Work
from shared.messages.billing.checkout import FollowCheckout
from shared.messages.billing.disputes import FollowDispute
from shared.messages.billing.entitlements import FollowEntitlements
from shared.messages.billing.history import FollowCreditNote, ListStripeEvents, StripeEventsView
from shared.messages.billing.payments import FindPayments, FollowPayment
from shared.messages.billing.plans import FollowPrice, FollowProduct
from shared.messages.billing.runs import ReplayStripeEvent
from shared.messages.billing.stripe_events import (
    THIN_PREFIX,
    StripeEvent,
    StripeEventData,
    StripeObject,
    StripeReread,
    StripeThinEvent,
)
from shared.messages.billing.subscriptions import FindSubscriptions, FollowSubscription
from shared.paging import cursor_of
from shared.telemetry import log

EventHandler = Callable[[EventRow], StripeReread]
EVENT_HANDLERS: Final[dict[str, EventHandler]] = {}
"""Handlers by event type. Events of all other types are stored and counted: Stripe has many types and adds more."""
METER_ERRORS: Final = frozenset({"billing.meter.error_report_triggered", "billing.meter.no_meter_found"})
"""Types of the events about usage that Stripe rejected after it had accepted it."""


def on(*event_types: str) -> Callable[[EventHandler], EventHandler]:
    """Register the handler of event types (https://docs.stripe.com/api/events/types)."""

    def register(handler: EventHandler) -> EventHandler:
        EVENT_HANDLERS.update(dict.fromkeys(event_types, handler))
        return handler

    return register


@on(
    "customer.subscription.created",
    "customer.subscription.updated",
    "customer.subscription.deleted",
    "customer.subscription.paused",
    "customer.subscription.resumed",
    "customer.subscription.pending_update_applied",
    "customer.subscription.pending_update_expired",
    # The only type with a meaning beyond "changed": the reading may order a mail (subscriptions/sync.py).
    "customer.subscription.trial_will_end",
)
def read_subscription(event: EventRow) -> StripeReread:
    """Read the subscription."""
    return FollowSubscription(key=event.object_id, subscription_id=event.object_id, event_id=event.id)


@on(
    *(
        f"subscription_schedule.{name}"
        for name in ("created", "updated", "released", "canceled", "completed", "aborted", "expiring")
    )
)
def read_subscription_of_schedule(event: EventRow) -> StripeReread:
    """Read the subscription of the schedule: how it ends may change without an event about the subscription."""
    return FindSubscriptions(
        key=event.object_id, object="subscription_schedule", object_id=event.object_id, event_id=event.id
    )


@on("customer.updated")
def resume_subscriptions_of_customer(event: EventRow) -> StripeReread:
    """Resume paused subscriptions if the customer has a payment method now."""
    return FindSubscriptions(key=event.object_id, object="customer", object_id=event.object_id, event_id=event.id)


@on(
    "payment_intent.created",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.canceled",
)
def read_payment(event: EventRow) -> StripeReread:
    """Read the payment intent."""
    return FollowPayment(key=event.object_id, payment_intent_id=event.object_id, event_id=event.id)


@on("charge.refunded")
def read_payment_of_charge(event: EventRow) -> StripeReread:
    """Read the payment intent of the charge."""
    return _read_payments_of("charge", event)


@on("charge.refund.updated", "refund.created", "refund.updated", "refund.failed")
def read_payment_of_refund(event: EventRow) -> StripeReread:
    """Read the payment intent of the refund."""
    return _read_payments_of("refund", event)


# Without a payment method an attempt fails without any event about the payment.
@on("invoice.payment_action_required", "invoice.payment_failed")
def read_payments_of_invoice(event: EventRow) -> StripeReread:
    """Read the payment intents of the invoice."""
    return _read_payments_of("invoice", event)


@on("invoice_payment.paid")
def read_payments_of_invoice_payment(event: EventRow) -> StripeReread:
    """Read the payment intents of the invoice: a payment may be linked to it long after it was created."""
    return _read_payments_of("invoice_payment", event)


@on(
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)
def read_dispute(event: EventRow) -> StripeReread:
    """Read the dispute."""
    return FollowDispute(key=event.object_id, dispute_id=event.object_id, event_id=event.id)


@on("product.created", "product.updated", "product.deleted")
def read_product(event: EventRow) -> StripeReread:
    """Read the product."""
    return FollowProduct(key=event.object_id, product_id=event.object_id, event_id=event.id)


@on("price.created", "price.updated", "price.deleted")
def read_price(event: EventRow) -> StripeReread:
    """Read the price."""
    return FollowPrice(key=event.object_id, price_id=event.object_id, event_id=event.id)


@on(
    *(
        f"checkout.session.{name}"
        for name in ("completed", "expired", "async_payment_succeeded", "async_payment_failed")
    )
)
def read_checkout(event: EventRow) -> StripeReread:
    """Read the Checkout Session."""
    return FollowCheckout(key=event.object_id, session_id=event.object_id, event_id=event.id)


@on("credit_note.created", "credit_note.updated", "credit_note.voided")
def read_credit_note(event: EventRow) -> StripeReread:
    """Read the credit note."""
    return FollowCreditNote(key=event.object_id, credit_note_id=event.object_id, event_id=event.id)


@on("entitlements.active_entitlement_summary.updated")
def read_entitlements(event: EventRow) -> StripeReread:
    """Read the active entitlements of the customer."""
    customer_id = event.object_id.removeprefix(entitlements_of(""))
    return FollowEntitlements(key=customer_id, customer_id=customer_id, event_id=event.id)


def _read_payments_of(part: PaymentPart, event: EventRow) -> StripeReread:
    return FindPayments(key=event.object_id, object=part, object_id=event.object_id, event_id=event.id)


NEEDED_EVENTS: Final = frozenset(EVENT_HANDLERS) - {
    # The other event of the same change suffices.
    "charge.refund.updated",
    "customer.subscription.pending_update_applied",
}
"""Events that a webhook endpoint must send; ``nest stripe setup`` and ``nest doctor`` check them."""


async def stripe_event(event: StripeEvent, work: Work, billing: Billing) -> None:
    """Store an event as pending and order the reading of its object."""
    row = EventRow.of(event, at=work.now)
    if await billing.events.find(row.id) is not None:
        # Received again after its inbox row expired. Only ReplayStripeEvent handles it again.
        return
    billing.events.add(_dispatched(row, work, billing), work)


async def stripe_thin_event(event: StripeThinEvent, work: Work, billing: Billing) -> None:
    """Handle a thin event as the snapshot event of the same change.

    Both may arrive. They stay two events with two IDs, since reading the object twice is harmless.
    """
    related = event.related_object
    snapshot = StripeEvent(
        key=work.key,
        id=event.id,
        type=event.type.removeprefix(THIN_PREFIX),
        livemode=event.livemode,
        account=event.context,
        data=StripeEventData(
            object=StripeObject() if related is None else StripeObject(object=related.type, id=related.id)
        ),
    )
    await stripe_event(snapshot, work, billing)


async def replay_stripe_event(command: ReplayStripeEvent, work: Work, billing: Billing) -> None:
    """Handle an event as if it were received for the first time, whatever its previous outcome."""
    event = command.event.model_copy(update={"key": work.key})
    row = await billing.events.find(EventRow.of(event, at=work.now).id)
    if row is None:
        await stripe_event(event, work, billing)
        return
    billing.events.save(_dispatched(row.reopened(), work, billing), work)


async def list_stripe_events(query: ListStripeEvents, work: Work, billing: Billing) -> StripeEventsView:
    """A page of the events about a user's objects, newest first.

    Event rows do not name a user, so they are found by the objects that billing's records of the user name. An erasure
    removes those records, and the list is empty after it.

    Raises:
        InvalidCursor: no page ended with the query's cursor.
    """
    object_ids = await _objects_of(query.user_id, billing)
    if object_ids:
        work.annotate(user_id=query.user_id)
    rows = await billing.events.about(object_ids, limit=query.limit, cursor=query.cursor)
    page = rows[: query.limit]
    return StripeEventsView(
        events=tuple(row.view() for row in page),
        next_cursor=cursor_of(page[-1].made_at, page[-1].id) if len(rows) > len(page) else None,
    )


async def _objects_of(user_id: str, billing: Billing) -> list[str]:
    """``object_id`` of the events about a user: the customers first, then the newest of the other objects."""
    mapped, subscriptions, checkouts, history = await asyncio.gather(
        billing.mappings.customers_of(user_id),
        billing.subscriptions.of_user(user_id),
        billing.checkouts.newest_of(user_id, limit=MAX_OBJECTS),
        billing.history.page(user_id, limit=MAX_OBJECTS, cursor=None),
    )
    paid = PageQuery(user_id=user_id, customers=mapped, status=None, limit=MAX_OBJECTS, cursor=None)
    payments, disputes = await asyncio.gather(billing.payments.page(paid), billing.disputes.page(paid))
    customers = [*mapped, *(each.stp_customer_id for each in subscriptions)]
    dated = [
        *((each.stp_created_at, each.stp_subscription_id) for each in subscriptions),
        *((each.created_at, each.stp_session_id) for each in checkouts),
        *((each.at, each.details.get("stp_credit_note_id")) for each in history),
        *(
            (each.stp_created_at, object_id)
            for each in payments
            for object_id in (each.stp_payment_intent_id, each.stp_charge_id, each.stp_invoice_id)
        ),
        *((each.stp_created_at, each.stp_dispute_id) for each in disputes),
    ]
    newest = sorted(dated, key=lambda each: each[0], reverse=True)
    ids = [
        *(name for customer in customers for name in (customer, entitlements_of(customer))),
        *(object_id for _, object_id in newest if object_id),
    ]
    return list(dict.fromkeys(ids))[:MAX_OBJECTS]


def _dispatched(row: EventRow, work: Work, billing: Billing) -> EventRow:
    dispatched = _dispatch(row, work, billing)
    if dispatched.outcome is not None:
        metrics.count_event(dispatched, work)
    return dispatched


def _dispatch(row: EventRow, work: Work, billing: Billing) -> EventRow:
    """Order the reading of an event's object; settle the event at once if its account, mode or type is not handled."""
    if row.account:
        # Checked before the mode: a live endpoint gets the test events of connected accounts too
        # (https://docs.stripe.com/connect/webhooks).
        metrics.LEFT_ALONE.labels("other_account").inc()
        return row.settled("other_account", at=work.now, retention=billing.event_retention)
    if metrics.count_other_mode(
        "event", livemode=row.livemode, expected=billing.livemode, stripe_event=row.stp_event_id
    ):
        return row.settled("other_mode", at=work.now, retention=billing.event_retention)
    if row.type in METER_ERRORS:
        # The event in Stripe has the reasons and samples.
        metrics.USAGE_ERROR_REPORTS.inc()
        log.error("stripe rejected usage", meter=row.object_id, stripe_event=row.stp_event_id)
        return row.settled("read", at=work.now, retention=billing.event_retention)
    handler = EVENT_HANDLERS.get(row.type) if row.object_id else None
    if handler is None:
        return row.settled("not_followed", at=work.now, retention=billing.event_retention)
    work.publish(handler(row))
    return row
