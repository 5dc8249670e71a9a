"""Synchronization of a payment's record with Stripe.

As for subscriptions, the record, the announced events and the mails depend only on the stored record and on what Stripe
returns now, not on the events that caused the reading.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Literal

from services.billing import metrics
from services.billing.context import Billing
from services.billing.customers.attribution import request_user, user_of_payment
from services.billing.payments.models import MAIL_WINDOW, STATUSES, Payment
from services.billing.stripe_api.payment_models import StripePayment
from services.billing.subscriptions.models import LIVE, Subscription
from services.billing.subscriptions.products import payment_left_alone
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import Sealed
from shared.messages.billing.subscriptions import FollowSubscription
from shared.messages.mailer.mails import PaymentVariables, ReceiptVariables, SendMail
from shared.money import format_amount
from shared.telemetry import log


async def sync_payment(
    intent_id: str, work: Work, billing: Billing, *, except_dispute: str | None = None
) -> Payment | Literal["missing", "other_product"]:
    """Read a payment intent from Stripe and record it; attribute its disputes to its user.

    The caller records the dispute ``except_dispute`` (Stripe's ID) itself. Returns the record, or why there is none:
    Stripe has no such payment in this mode, or it is for a product that Nest does not sell. Raises StripeUnavailable.
    """
    # The record is loaded first, because its version fences the reading: if another handler records a later reading
    # meanwhile, the version has changed and this reading is not recorded.
    stored = await billing.payments.find_by_stripe_id(intent_id)
    stripe_payment = await billing.stripe.payment(intent_id)
    if stripe_payment is None:
        metrics.MISSING_PAYMENTS.inc()
        log.warning("stripe has no such payment", payment_intent=intent_id)
        return "missing"
    if metrics.count_other_mode(
        "payment", livemode=stripe_payment.livemode, expected=billing.livemode, payment_intent=intent_id
    ):
        return "missing"
    if await payment_left_alone(stripe_payment, stored, billing):
        metrics.LEFT_ALONE.labels("other_product").inc()
        return "other_product"
    updated = await record_payment(stored, stripe_payment, work, billing)
    if stored is not None and stored.user_id != updated.user_id:
        await _attribute_disputes(updated, except_dispute, work, billing)
    return updated


async def _anonymized_if_erased(stripe_payment: StripePayment, billing: Billing) -> StripePayment:
    """The payment; if its user was erased, without customer and user: then it is only recorded for the books."""
    customer = stripe_payment.customer
    customer_ids = (None, None) if customer is None else (customer.id, customer.user_id)
    if not await billing.erased.contains_any(stripe_payment.metadata_user_id, *customer_ids):
        return stripe_payment
    invoice = stripe_payment.invoice and replace(stripe_payment.invoice, user_id=None)
    return replace(stripe_payment, customer=None, user_id=None, invoice=invoice)


async def record_payment(
    stored: Payment | None, stripe_payment: StripePayment, work: Work, billing: Billing
) -> Payment:
    """Record a reading, announce the changes, and order the mail about a failed attempt."""
    stripe_payment = await _anonymized_if_erased(stripe_payment, billing)
    user_id = await user_of_payment(stripe_payment, billing)
    if stored is None:
        updated = Payment.first_seen(work.new_id("payment"), user_id, stripe_payment, at=work.now)
    else:
        # The stored record was committed before this reading began, even if the clocks of two machines differ.
        updated = stored.follow(user_id, stripe_payment, read_at=max(work.now, stored.read_at), at=work.now)
    if updated.status not in STATUSES:
        metrics.UNKNOWN_PAYMENT_STATUSES.inc()
        log.error("unknown payment status", payment=updated.id, status=updated.status)
    email = None if stripe_payment.customer is None else stripe_payment.customer.email
    # A payment without a subscription creates no user.
    if updated.awaits_user and email is not None:
        # The reference is the payment, not its customer: a request for the customer may have been answered before this
        # payment is stored, and then no answer would lead to it.
        request_user(stripe_payment.id, email, work, billing)
    for event in updated.events_since(stored, attempted_at=stripe_payment.attempted_at):
        work.publish(event)
    if updated.status == "succeeded" and (stored is None or stored.status != "succeeded"):
        await _note_first_payment(updated, work, billing)
        if billing.receipts and (stored is not None or not await billing.takeover.covers(stripe_payment.attempted_at)):
            await _order_receipt(updated, stripe_payment, work, billing)
    if updated.mail_due(stripe_payment, at=work.now):
        if stored is not None or not await billing.takeover.covers(stripe_payment.attempted_at):
            await _order_mail(updated, stripe_payment, work, billing)
        updated = updated.mail_considered()
    if stored is None:
        billing.payments.add(updated, work)
    else:
        billing.payments.save(updated, work)
    return updated


async def _order_receipt(updated: Payment, stripe_payment: StripePayment, work: Work, billing: Billing) -> None:
    """Order the mail about money that was received for an invoice, once for each payment."""
    email = None if stripe_payment.customer is None else stripe_payment.customer.email
    invoice = stripe_payment.invoice
    recent = stripe_payment.attempted_at > work.now - MAIL_WINDOW
    if email is None or invoice is None or updated.amount_received <= 0 or not recent:
        return
    product = None if invoice.product_id is None else await billing.catalog.product(invoice.product_id)
    variables = ReceiptVariables(
        amount=format_amount(updated.amount_received, updated.currency),
        paid_at=stripe_payment.attempted_at,
        plan=None if product is None else product.name,
        link=invoice.page,
    )
    work.publish(
        SendMail(
            key=updated.user_id or updated.stp_payment_intent_id,
            template="receipt",
            to=Sealed.of(email),
            variables=Sealed.of_json(variables),
        ),
        id=derived_message_id("receipt", updated.stp_payment_intent_id),
    )


async def _note_first_payment(updated: Payment, work: Work, billing: Billing) -> None:
    """Re-read a subscription that was not paid before: Stripe sends no event about it when its invoice is paid."""
    stripe_id = updated.stp_subscription_id
    subscription = None if stripe_id is None else await billing.subscriptions.find_by_stripe_id(stripe_id)
    if stripe_id is not None and subscription is not None and not subscription.paid:
        work.publish(FollowSubscription(key=stripe_id, subscription_id=stripe_id))


async def _attribute_disputes(updated: Payment, except_dispute: str | None, work: Work, billing: Billing) -> None:
    if updated.user_id is None:
        return
    for dispute in await billing.disputes.of_payment(updated.stp_payment_intent_id):
        if dispute.user_id != updated.user_id and dispute.stp_dispute_id != except_dispute:
            attributed = dispute.attributed(updated.user_id, at=work.now)
            billing.disputes.save(attributed, work)
            # They were announced without a user.
            await billing.history.add_events(
                [
                    (event, derived_message_id("attributed-dispute", attributed.id, updated.user_id, event.wire))
                    for event in attributed.events_since(None)
                ],
                work,
            )


def _keeps_access(subscription: Subscription | None, work: Work, billing: Billing) -> bool:
    """Whether a renewal that failed now leaves the user access for a while."""
    if subscription is None:
        return billing.access.grace > timedelta(0)
    # The record may be from before the failure, when nothing was overdue yet.
    overdue = replace(subscription, status="past_due", overdue_since=subscription.overdue_since or work.now)
    return overdue.live(work.now, billing.access)


async def _order_mail(updated: Payment, stripe_payment: StripePayment, work: Work, billing: Billing) -> None:
    """Order the mail about a failed payment, unless the subscription caused one within a day."""
    email = None if stripe_payment.customer is None else stripe_payment.customer.email
    if email is None or updated.stp_subscription_id is None:
        return
    if not await billing.failed_payment_mails.claim(updated.stp_subscription_id, work):
        return
    invoice = stripe_payment.invoice
    subscription = await billing.subscriptions.find_by_stripe_id(updated.stp_subscription_id)
    # A bank debit may fail after the subscription began.
    begun = subscription is not None and subscription.status in LIVE
    first = invoice is not None and not invoice.renewal and not begun
    variables = PaymentVariables(
        link=None if invoice is None else invoice.payment_link,
        first=first,
        without_method=stripe_payment.without_method,
        retried=invoice is not None and invoice.retried,
        keeps_access=not first and _keeps_access(subscription, work, billing),
    )
    work.publish(
        SendMail(
            key=updated.user_id or updated.stp_payment_intent_id,
            template="payment-failed",
            to=Sealed.of(email),
            variables=Sealed.of_json(variables),
        ),
        id=derived_message_id("payment-failed", updated.stp_payment_intent_id, str(updated.waits_for_person)),
    )
