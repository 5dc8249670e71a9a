"""Handlers for payments: synchronization with Stripe, and the list for operators."""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.events.pending import follow, pending_events, settle
from services.billing.payments.pagination import page_of
from services.billing.payments.sync import sync_payment
from services.billing.stripe_api.calls import StripeRefused
from services.billing.stripe_api.reschedule import reschedule
from shared.bus.work import Work
from shared.messages.billing.errors import StripeUnavailable
from shared.messages.billing.payments import FindPayments, FollowPayment, ListPayments, PaymentsView


async def follow_payment(command: FollowPayment, work: Work, billing: Billing) -> None:
    """Read a payment intent from Stripe, record it, and settle the pending events about it."""
    await follow(command, command.payment_intent_id, sync_payment, work, billing)


async def find_payments(command: FindPayments, work: Work, billing: Billing) -> None:
    """Order the reading of the payment intents to which a charge, a refund or an invoice belongs.

    If it is one payment intent, the pending events wait for its reading, which settles the events about the payment
    intent itself too.
    """
    pending = await pending_events(command, command.object_id, billing)
    if pending is None:
        return
    try:
        intent_ids = await billing.stripe.payment_intents_of(command.object, command.object_id)
    except StripeUnavailable:
        reschedule(command, work)
        return
    except StripeRefused as refused:
        refused.report(**{command.object: command.object_id})
        settle(pending, "refused", work, billing)
        return
    if intent_ids is None:
        settle(pending, "missing", work, billing)
        return
    if len(intent_ids) == 1:
        [intent_id] = intent_ids
        work.publish(FollowPayment(key=intent_id, payment_intent_id=intent_id, event_id=command.event_id))
        for event in pending:
            billing.events.save(event.waiting_for_payment(intent_id), work)
        return
    for intent_id in intent_ids:
        work.publish(FollowPayment(key=intent_id, payment_intent_id=intent_id))
    settle(pending, "read", work, billing)


async def list_payments(query: ListPayments, work: Work, billing: Billing) -> PaymentsView:
    """A page of payments, newest first; raises InvalidCursor for a cursor that no page ended with."""
    views, next_cursor = await page_of(billing.payments, query, work, billing)
    return PaymentsView(payments=views, next_cursor=next_cursor)
