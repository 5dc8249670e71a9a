"""How are the records of payments kept true, and read?"""

from __future__ import annotations

from collections.abc import Sequence

from services.billing.context import Billing
from services.billing.events.models import EventRow, Outcome
from services.billing.events.pending import read_for
from services.billing.payments.pages import one_page
from services.billing.payments.sync import follow_payment_intent
from services.billing.stripe_api.payments import payments_of
from shared.bus.work import Work
from shared.messages.auth.users import UserEnsured
from shared.messages.billing.payments import FindPayments, FollowPayment, ListPayments, PaymentsView


async def follow_payment(command: FollowPayment, work: Work, billing: Billing) -> None:
    """Bring our record of a payment to what Stripe says; later, if Stripe can't be asked now."""

    async def read(_hints: Sequence[EventRow]) -> Outcome:
        payment = await follow_payment_intent(command.payment_intent_id, work, billing)
        return "missing" if payment is None else "read"

    await read_for(command, command.payment_intent_id, read, work, billing)


async def find_payments(command: FindPayments, work: Work, billing: Billing) -> None:
    """Follow the payments that a charge, a refund or an invoice is part of; later, if Stripe can't be asked now.

    Where it is one, the events wait for its reading, which may cover those about the payment itself as well.
    """

    async def read(hints: Sequence[EventRow]) -> Outcome | None:
        intent_ids = await payments_of(command.object, command.object_id, billing.stripe.calls)
        if len(intent_ids) != 1:
            for intent_id in intent_ids:
                work.publish(FollowPayment(key=intent_id, payment_intent_id=intent_id))
            return "read"
        work.publish(FollowPayment(key=intent_ids[0], payment_intent_id=intent_ids[0], event_id=command.event_id))
        for hint in hints:
            billing.events.save(hint.led_to(intent_ids[0]), work)
        return None

    await read_for(command, command.object_id, read, work, billing)


async def payer_ensured(event: UserEnsured, work: Work, billing: Billing) -> None:
    """Attach the customer of a payment that waited for its user to that user, and follow the payment."""
    payment = await billing.payments.find_by_stripe_id(event.reference)
    if payment is None or payment.stp_customer_id is None:
        return
    if await billing.erased.contains_any(event.user_id):
        await billing.erased.add([payment.stp_customer_id], work)
        return
    if await billing.mappings.find(payment.stp_customer_id) is None:
        billing.mappings.attach(payment.stp_customer_id, event.user_id, work)
    work.publish(FollowPayment(key=event.reference, payment_intent_id=event.reference))


async def list_payments(query: ListPayments, work: Work, billing: Billing) -> PaymentsView:
    """The payments asked for, newest first, a page at a time.

    Raises:
        InvalidCursor: no page ended with it.
    """
    views, next_cursor = await one_page(billing.payments, query, work, billing)
    return PaymentsView(payments=views, next_cursor=next_cursor)
