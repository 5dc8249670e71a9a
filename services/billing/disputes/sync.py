"""Synchronization of a dispute's record with Stripe, and the mails to operators about it."""

from __future__ import annotations

from typing import Literal

from services.billing import metrics
from services.billing.context import Billing
from services.billing.customers.attribution import user_of_dispute
from services.billing.disputes.models import STATUSES, Dispute, MailOccasion
from services.billing.payments.models import Payment
from services.billing.payments.sync import sync_payment
from services.billing.stripe_api.payment_models import StripeDispute
from services.billing.subscriptions.products import dispute_left_alone
from shared.bus.work import Work
from shared.ids import derived_message_id
from shared.messages import Sealed
from shared.messages.mailer.mails import DisputeVariables, SendMail
from shared.money import format_amount
from shared.telemetry import log


async def sync_dispute(dispute_id: str, work: Work, billing: Billing) -> Dispute | Literal["missing", "other_product"]:
    """Read a dispute and the disputed payment from Stripe and record both; raises StripeUnavailable.

    The payment is recorded first, whether or not an event was about it, because it determines the user of the dispute.
    Returns the record, or why there is none, as ``sync_payment``.
    """
    # The record is loaded first: its version fences the reading, as in ``sync_payment``.
    stored = await billing.disputes.find_by_stripe_id(dispute_id)
    stripe_dispute = await billing.stripe.dispute(dispute_id)
    if stripe_dispute is None:
        metrics.MISSING_PAYMENTS.inc()
        log.warning("stripe has no such dispute", dispute=dispute_id)
        return "missing"
    if metrics.count_other_mode(
        "dispute", livemode=stripe_dispute.livemode, expected=billing.livemode, dispute=dispute_id
    ):
        return "missing"
    if stored is None and await dispute_left_alone(stripe_dispute, billing, billing.stripe):
        metrics.LEFT_ALONE.labels("other_product").inc()
        return "other_product"
    payment = None
    if stripe_dispute.payment_intent_id is not None:
        recorded = await sync_payment(stripe_dispute.payment_intent_id, work, billing, except_dispute=dispute_id)
        payment = None if isinstance(recorded, str) else recorded
    return await _record(stored, stripe_dispute, payment, work, billing)


async def _record(
    stored: Dispute | None, stripe_dispute: StripeDispute, payment: Payment | None, work: Work, billing: Billing
) -> Dispute:
    """Record a reading, announce the changes, and order the mails to operators."""
    user_id = await user_of_dispute(stripe_dispute, payment, billing)
    if stored is None:
        updated = Dispute.first_seen(work.new_id("dispute"), user_id, stripe_dispute, payment, at=work.now)
    else:
        read_at = max(work.now, stored.read_at)
        updated = stored.follow(user_id, stripe_dispute, payment, read_at=read_at, at=work.now)
    if updated.status not in STATUSES:
        metrics.UNKNOWN_PAYMENT_STATUSES.inc()
        log.error("unknown dispute status", dispute=updated.id, status=updated.status)
    for event in updated.events_since(stored):
        work.publish(event)
    if stored is not None or not await billing.takeover.covers(stripe_dispute.created):
        for occasion in updated.mails_due(stored, at=work.now):
            _order_mail(occasion, updated, work, billing)
    if stored is None:
        billing.disputes.add(updated, work)
    else:
        billing.disputes.save(updated, work)
    return updated


def _order_mail(occasion: MailOccasion, dispute: Dispute, work: Work, billing: Billing) -> None:
    """Order the mail to operators about an occasion; it is sent once, however often it is ordered."""
    if billing.operators_address is None:
        metrics.DISPUTES_WITHOUT_MAIL.inc()
        log.warning("no operators address for a dispute", dispute=dispute.id, occasion=occasion, status=dispute.status)
        return
    variables = DisputeVariables(
        dispute_id=dispute.stp_dispute_id,
        amount=format_amount(dispute.amount, dispute.currency),
        reason=dispute.reason,
        outcome=dispute.status if occasion == "closed" else None,
        link=_dashboard_link(dispute, billing),
    )
    # Each decision causes a mail of its own: ``won`` may become ``lost``.
    decision = (dispute.status,) if occasion == "closed" else ()
    work.publish(
        SendMail(
            key=dispute.stp_dispute_id,
            template="dispute",
            to=Sealed.of(billing.operators_address),
            variables=Sealed.of_json(variables),
        ),
        id=derived_message_id("dispute", dispute.stp_dispute_id, occasion, *decision),
    )


def _dashboard_link(dispute: Dispute, billing: Billing) -> str:
    payment = dispute.stp_payment_intent_id or dispute.stp_charge_id
    return f"{billing.dashboard}/{'' if billing.livemode else 'test/'}payments/{payment}"
