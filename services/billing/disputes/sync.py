"""How does the record of a dispute follow Stripe, and how do operators hear of it?"""

from __future__ import annotations

from typing import Final

from services.billing import metrics
from services.billing.context import Billing
from services.billing.disputes.models import STATUSES, Dispute, Occasion
from services.billing.payments.models import Payment, written
from services.billing.payments.sync import follow_payment_intent
from services.billing.stripe_api.models import StripeDispute
from services.billing.stripe_api.payments import read_dispute
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import Sealed
from shared.messages.mailer.mails import DisputeVariables, SendMail
from shared.telemetry import log

DASHBOARD: Final = "https://dashboard.stripe.com/"


async def follow_stripe_dispute(dispute_id: str, work: Work, billing: Billing) -> Dispute | None:
    """Bring our records of a dispute and of the payment it is about to what Stripe says now.

    The payment comes first, whether an event told of it or not: whose the dispute is, is known of it.

    Returns:
        The record; None when there is nothing to record.

    Raises:
        StripeUnavailable: Stripe could not be asked.
    """
    # The fence, as in ``follow_payment_intent``.
    held = await billing.disputes.find_by_stripe_id(dispute_id)
    truth = await read_dispute(dispute_id, billing.stripe.calls)
    if truth is None:
        metrics.MISSING_PAYMENTS.inc()
        log.warning("stripe has no such dispute", dispute=dispute_id)
        return None
    if metrics.count_other_mode("dispute", livemode=truth.livemode, expected=billing.livemode, dispute=dispute_id):
        return None
    payment = None
    if truth.payment_intent_id is not None:
        payment = await follow_payment_intent(truth.payment_intent_id, work, billing, but_dispute=dispute_id)
    user_id = await user_of_dispute(truth, payment, billing)
    if held is None:
        now = Dispute.first_seen(work.new_id("dispute"), user_id, truth, payment, at=work.now)
    else:
        now = held.follow(user_id, truth, payment, read_at=max(work.now, held.read_at), at=work.now)
    if now.status not in STATUSES:
        metrics.UNKNOWN_PAYMENT_STATUSES.inc()
        log.error("unknown dispute status", dispute=now.id, status=now.status)
    for event in now.news(held):
        work.publish(event)
    if held is not None or not await billing.takeover.covers(truth.created):
        for occasion in now.occasions(held, at=work.now):
            _tell_operators(occasion, now, work, billing)
    if held is None:
        billing.disputes.add(now, work)
    else:
        billing.disputes.save(now, work)
    return now


async def user_of_dispute(truth: StripeDispute, payment: Payment | None, billing: Billing) -> str | None:
    """Whose money it is about: the payment's user, or the user of a customer charged without a payment intent."""
    if payment is not None or truth.customer_id is None:
        return None if payment is None else payment.user_id
    mapping = await billing.mappings.find(truth.customer_id)
    return None if mapping is None else mapping.user_id


def _tell_operators(occasion: Occasion, now: Dispute, work: Work, billing: Billing) -> None:
    """Order the one mail of an occasion."""
    if billing.operators_address is None:
        metrics.DISPUTES_WITHOUT_MAIL.inc()
        log.warning("a dispute and nobody to tell", dispute=now.id, occasion=occasion, status=now.status)
        return
    variables = DisputeVariables(
        dispute_id=now.stp_dispute_id,
        amount=written(now.amount, now.currency),
        reason=now.reason,
        outcome=now.status if occasion == "closed" else None,
        link=_dashboard(now, livemode=billing.livemode),
    )
    # Decided anew, ``won`` become ``lost``, is an occasion of its own.
    of_status = (now.status,) if occasion == "closed" else ()
    work.publish(
        SendMail(
            key=now.stp_dispute_id,
            template="dispute",
            to=Sealed.of(billing.operators_address),
            variables=Sealed.of(variables.model_dump_json()),
        ),
        id=derived_message_id("dispute", now.stp_dispute_id, occasion, *of_status),
    )


def _dashboard(now: Dispute, *, livemode: bool) -> str:
    """Where an operator sees the payment, and answers."""
    subject = now.stp_payment_intent_id or now.stp_charge_id
    return f"{DASHBOARD}{'' if livemode else 'test/'}payments/{subject}"
