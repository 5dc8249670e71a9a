"""What does each type of event make us read again? The object it is about, or the payments that this is part of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from services.billing.stripe.payments import Lead
from shared.messages.billing.disputes import FollowDispute
from shared.messages.billing.payments import FindPayments, FollowPayment
from shared.messages.billing.stripe_events import StripeReread
from shared.messages.billing.subscriptions import FollowSubscription

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
