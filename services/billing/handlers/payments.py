"""How are the records of payments kept true, and read?"""

from __future__ import annotations

from services.billing.context import Billing
from services.billing.errors import StripeUnavailable
from services.billing.following.payments import follow_payment_intent
from services.billing.handlers.pages import one_page
from services.billing.stripe.payments import payments_of
from services.billing.stripe.putting_off import later
from shared.messages.auth import UserEnsured
from shared.messages.billing import FindPayments, FollowPayment, ListPayments, PaymentsView
from shared.work import Work


async def follow_payment(command: FollowPayment, work: Work, billing: Billing) -> None:
    """Bring our record of a payment to what Stripe says; later, if Stripe can't be asked now."""
    try:
        await follow_payment_intent(command.payment_intent_id, work, billing)
    except StripeUnavailable:
        again = command.model_copy(update={"key": work.key, "attempt": command.attempt + 1})
        work.publish(again, at=later(command.attempt, work))


async def find_payments(command: FindPayments, work: Work, billing: Billing) -> None:
    """Follow the payments that a charge, a refund or an invoice is part of; later, if Stripe can't be asked now."""
    try:
        intent_ids = await payments_of(command.object, command.object_id, billing.stripe.calls)
    except StripeUnavailable:
        again = command.model_copy(update={"key": work.key, "attempt": command.attempt + 1})
        work.publish(again, at=later(command.attempt, work))
        return
    for intent_id in intent_ids:
        work.publish(FollowPayment(key=work.key, payment_intent_id=intent_id))


async def payer_ensured(event: UserEnsured, work: Work, billing: Billing) -> None:
    """Attach the customer of a payment that waited for its user to that user, and follow the payment."""
    payment = await billing.payments.find_by_stripe_id(event.reference)
    if payment is None or payment.stp_customer_id is None:
        return
    if await billing.erased.includes(event.user_id):
        await billing.erased.add([payment.stp_customer_id], work)
        return
    if await billing.mappings.find(payment.stp_customer_id) is None:
        billing.mappings.add(payment.stp_customer_id, event.user_id, work)
    work.publish(FollowPayment(key=payment.stp_customer_id, payment_intent_id=event.reference))


async def list_payments(query: ListPayments, work: Work, billing: Billing) -> PaymentsView:
    """The payments asked for, newest first, a page at a time.

    Raises:
        InvalidCursor: no page ended with it.
    """
    views, next_cursor = await one_page(billing.payments, query, work, billing)
    return PaymentsView(payments=views, next_cursor=next_cursor)
