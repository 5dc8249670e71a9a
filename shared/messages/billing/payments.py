"""Payments, as recorded from Stripe's payment intents."""

from typing import Literal

from shared.errors import InvalidCursor
from shared.messages.billing.stripe_events import StripeReread
from shared.messages.message import Event, OperatorList, Part, Reply
from shared.messages.types import Cursor, CursorText, Limit, Many, Moment, NextCursor, NonEmpty


class FollowPayment(StripeReread, wire="billing.follow-payment"):
    """Re-read a payment intent from Stripe and update its record."""

    payment_intent_id: str
    """Stripe's ID, ``pi_…``."""


class FindPayments(StripeReread, wire="billing.find-payments"):
    """Re-read all payments that a Stripe object belongs to."""

    object: Literal["charge", "refund", "invoice", "invoice_payment"]
    object_id: str
    """Stripe's ID."""


class PaymentEvent(Event):
    """Fields shared by the events of a payment. Amounts are in the currency's minor unit.

    Events of a subscription's payment are published once its user is known.
    """

    user_id: str | None
    """None for a payment outside of subscriptions without a known user."""
    payment_id: str
    """ID of the payment's record in billing."""
    stp_subscription_id: str | None
    """Stripe's ID of the subscription; None for other payments."""
    amount: int
    currency: str
    """ISO 4217, lower case."""
    happened_at: Moment | None = None
    """When it was attempted or cancelled, according to Stripe; None for refunds."""


class PaymentSucceeded(PaymentEvent, wire="billing.payment-succeeded"):
    """A payment was received. Not published for invoices with an amount of 0."""

    amount_received: int


class PaymentFailed(PaymentEvent, wire="billing.payment-failed"):
    """An attempt to collect a payment failed. Of attempts in quick succession only the last is published."""

    failure: str | None
    """Stripe's failure code, for example ``card_declined``; None if no payment method is stored."""
    decline: str | None
    """The bank's decline code, for example ``insufficient_funds``."""


class PaymentActionRequired(PaymentEvent, wire="billing.payment-action-required"):
    """A renewal waits until the payer confirms it with the bank."""


class PaymentCancelled(PaymentEvent, wire="billing.payment-cancelled"):
    """A payment was cancelled and will not be collected."""


class PaymentRefunded(PaymentEvent, wire="billing.payment-refunded"):
    """A payment was refunded, in full or in part."""

    amount_refunded: int
    """Sum of all refunds of the payment."""


class PaymentView(Part):
    """A payment. Amounts are in the currency's minor unit, for example cents."""

    id: str
    """ID of the payment."""
    user_id: str | None
    """User of the payment; null if unknown."""
    status: str
    """Stripe's status, for example ``succeeded``."""
    amount: int
    """Amount due."""
    amount_received: int
    """Amount received."""
    amount_refunded: int
    """Sum of all refunds."""
    currency: str
    """Currency (ISO 4217), lower case."""
    failure_code: str | None
    """Stripe's code of the latest failure, for example ``card_declined``; null if there was none."""
    decline_code: str | None
    """The bank's decline code, for example ``insufficient_funds``; null if there was none."""
    disputed: bool
    """Whether the payer disputed the payment."""
    stp_payment_intent_id: str
    """ID of the payment intent in Stripe."""
    stp_charge_id: str | None
    """ID of the latest charge in Stripe."""
    stp_invoice_id: str | None
    """ID of the invoice in Stripe."""
    stp_subscription_id: str | None
    """ID of the subscription in Stripe; null for other payments."""
    stp_customer_id: str | None
    """ID of the customer in Stripe."""
    created_at: Moment
    """When the payment was created, according to Stripe."""
    cancelled_at: Moment | None
    """When the payment was cancelled; null if it was not."""
    updated_at: Moment
    """When the record last changed."""


class PaymentsView(Reply):
    """A page of payments."""

    payments: Many[PaymentView]
    """The payments, newest first."""
    next_cursor: NextCursor


class ListPayments(
    OperatorList, wire="billing.list-payments", audited=True, reply=PaymentsView, refuses=(InvalidCursor,)
):
    """List payments."""

    user_id: NonEmpty | None = None
    """Only payments of this user."""
    status: NonEmpty | None = None
    """Only payments with this Stripe status."""
    limit: Limit = 100
    cursor: Cursor[CursorText] = None
