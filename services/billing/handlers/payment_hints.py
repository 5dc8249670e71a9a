"""What do Stripe's events about money hint at?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from services.billing.context import Billing
from services.billing.handlers.disputes import follow_dispute
from services.billing.handlers.payments import find_payments, follow_payment
from services.billing.stripe.payments import Lead
from shared.messages.billing import FindPayments, FollowDispute, FollowPayment
from shared.messages.stripe import StripeObject
from shared.work import Work


async def _payment(subject: StripeObject, work: Work, billing: Billing) -> None:
    await follow_payment(FollowPayment(payment_intent_id=subject.id), work, billing)


async def _dispute(subject: StripeObject, work: Work, billing: Billing) -> None:
    await follow_dispute(FollowDispute(dispute_id=subject.id), work, billing)


async def _part_of_payments(lead: Lead, subject: StripeObject, work: Work, billing: Billing) -> None:
    await find_payments(FindPayments(object=lead, object_id=subject.id), work, billing)


_charge = partial(_part_of_payments, "charge")
_refund = partial(_part_of_payments, "refund")
_invoice = partial(_part_of_payments, "invoice")
_invoice_payment = partial(_part_of_payments, "invoice_payment")
PAYMENT_HINTS: Final[dict[str, Callable[[StripeObject, Work, Billing], Awaitable[None]]]] = {
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
"""What each type of event makes us read again."""
