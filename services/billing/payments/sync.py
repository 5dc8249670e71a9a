"""How does the record of a payment follow Stripe? An event is a hint; what is true is read from Stripe.

As with subscriptions (``subscriptions.py``), what is announced and who is written to depends only on the record and on
what Stripe says now, never on which event came, so neither order nor repetition matters.
"""

from __future__ import annotations

from dataclasses import replace

from services.billing import metrics
from services.billing.context import Billing
from services.billing.customers.attribution import ask_auth
from services.billing.payments.models import STATUSES, Payment
from services.billing.stripe_api.models import StripePayment
from services.billing.stripe_api.payments import read_payment
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import Sealed
from shared.messages.mailer.mails import PaymentVariables, SendMail
from shared.telemetry import log


async def follow_payment_intent(
    intent_id: str, work: Work, billing: Billing, *, but_dispute: str | None = None
) -> Payment | None:
    """Bring our record of a payment, and whose its disputes are, to what Stripe says now.

    Args:
        intent_id: Stripe's id.
        work: what is done about it.
        billing: where.
        but_dispute: Stripe's id of a dispute that the caller brings up to date itself.

    Returns:
        The record; None when there is nothing to record.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    # In this order: the version of what was held before the reading began is the fence. Who stores a later reading
    # meanwhile moves it, and the earlier one can't be stored any more.
    held = await billing.payments.find_by_stripe_id(intent_id)
    truth = await read_payment(intent_id, billing.stripe.calls)
    if truth is None:
        metrics.MISSING_PAYMENTS.inc()
        log.warning("stripe has no such payment", payment_intent=intent_id)
        return None
    if metrics.count_other_mode(
        "payment", livemode=truth.livemode, expected=billing.livemode, payment_intent=intent_id
    ):
        return None
    now = await _record(held, await _nobodys_if_erased(truth, billing), work, billing)
    if held is not None and held.user_id != now.user_id:
        await _attribute_disputes(now, but_dispute, work, billing)
    return now


async def _nobodys_if_erased(truth: StripePayment, billing: Billing) -> StripePayment:
    """The payment as it is; of somebody who was erased, without them: it is kept for the books, and nobody is told."""
    customer = truth.customer
    known = (None, None) if customer is None else (customer.id, customer.user_id)
    if not await billing.erased.contains_any(truth.claimed_user_id, *known):
        return truth
    invoice = truth.invoice and replace(truth.invoice, user_id=None)
    return replace(truth, customer=None, user_id=None, invoice=invoice)


async def _record(held: Payment | None, truth: StripePayment, work: Work, billing: Billing) -> Payment:
    user_id = await user_of_payment(truth, billing)
    if held is None:
        now = Payment.first_seen(work.new_id("payment"), user_id, truth, at=work.now)
    else:
        # What we hold was committed before this reading began, whatever the clocks of two machines say.
        now = held.follow(user_id, truth, read_at=max(work.now, held.read_at), at=work.now)
    if now.status not in STATUSES:
        metrics.UNKNOWN_PAYMENT_STATUSES.inc()
        log.error("unknown payment status", payment=now.id, status=now.status)
    email = None if truth.customer is None else truth.customer.email
    # A payment outside of subscriptions makes nobody a user.
    if now.awaits_user and email is not None:
        # With the payment as its reference, not the customer: a question about that one may have been answered before
        # this payment is stored, and then nobody would come back to it.
        ask_auth(truth.id, email, work, billing)
    for event in now.news(held):
        work.publish(event)
    if now.mail_due(truth, at=work.now):
        if held is not None or not await billing.takeover.covers(truth.attempted_at):
            await _tell_person(now, truth, work, billing)
        now = now.told()
    if held is None:
        billing.payments.add(now, work)
    else:
        billing.payments.save(now, work)
    return now


async def user_of_payment(truth: StripePayment, billing: Billing) -> str | None:
    """Whose payment it is: as Stripe was told, else as was found out of its subscription's customer."""
    if truth.claimed_user_id is not None or truth.customer is None:
        return truth.claimed_user_id
    mapping = await billing.mappings.find(truth.customer.id)
    return None if mapping is None else mapping.user_id


async def _attribute_disputes(now: Payment, but: str | None, work: Work, billing: Billing) -> None:
    if now.user_id is None:
        return
    for dispute in await billing.disputes.of_payment(now.stp_payment_intent_id):
        if dispute.user_id != now.user_id and dispute.stp_dispute_id != but:
            billing.disputes.save(dispute.attributed(now.user_id, at=work.now), work)


async def _tell_person(now: Payment, truth: StripePayment, work: Work, billing: Billing) -> None:
    """Order the mail about a failed payment, if the subscription's person had none within a day."""
    email = None if truth.customer is None else truth.customer.email
    if email is None or now.stp_subscription_id is None:
        return
    if not await billing.failed_payment_mails.claim(now.stp_subscription_id, work):
        return
    variables = PaymentVariables(link=None if truth.invoice is None else truth.invoice.payment_link)
    work.publish(
        SendMail(
            key=now.user_id or now.stp_payment_intent_id,
            template="payment-failed",
            to=Sealed.of(email),
            variables=Sealed.of(variables.model_dump_json()),
        ),
        id=derived_message_id("payment-failed", now.stp_payment_intent_id, str(now.waits_for_person)),
    )
