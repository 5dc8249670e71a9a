"""TODO."""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.billing.errors import InvalidCursor
from shared.messages.billing.stripe_events import StripeReread
from shared.messages.message import Event, Moment, NonEmpty, Part, Query, Reply


class FollowPayment(StripeReread, wire="billing.follow-payment"):
    """Read a payment intent from Stripe and bring our record to what it says."""

    payment_intent_id: str
    """Stripe's id, ``pi_…``."""


class FindPayments(StripeReread, wire="billing.find-payments"):
    """Follow the payments that an object of Stripe's is part of."""

    object: Literal["charge", "refund", "invoice", "invoice_payment"]
    object_id: str
    """Stripe's id."""


class PaymentEvent(Event):
    """What every event of a payment says. Amounts are in the currency's minor unit, as Stripe counts.

    A subscription's payment is announced once it is known whose it is.
    """

    user_id: str | None
    """None for a payment outside of subscriptions that is nobody's."""
    payment_id: str
    """Ours."""
    stp_subscription_id: str | None
    """Stripe's; None outside of subscriptions."""
    amount: int
    currency: str
    """Three letters, lower case."""


class PaymentSucceeded(PaymentEvent, wire="billing.payment-succeeded"):
    """A payment was received; never said of an invoice over nothing."""

    amount_received: int


class PaymentFailed(PaymentEvent, wire="billing.payment-failed"):
    """An attempt to collect a payment failed; of attempts that follow each other fast the last one is announced."""

    failure: str | None
    """Stripe's word: ``card_declined``."""
    decline: str | None
    """The bank's reason: ``insufficient_funds``."""


class PaymentActionRequired(PaymentEvent, wire="billing.payment-action-required"):
    """A renewal waits for the person, whose bank asks for a confirmation."""


class PaymentCancelled(PaymentEvent, wire="billing.payment-cancelled"):
    """A payment will not be collected any more."""


class PaymentRefunded(PaymentEvent, wire="billing.payment-refunded"):
    """Money was given back."""

    amount_refunded: int
    """In all, with earlier refunds of the same payment."""


class PaymentView(Part):
    """A payment; amounts in the currency's minor unit, as Stripe counts."""

    id: str
    user_id: str | None
    status: str
    amount: int
    amount_received: int
    amount_refunded: int
    currency: str
    failure_code: str | None
    decline_code: str | None
    disputed: bool
    stp_payment_intent_id: str
    stp_charge_id: str | None
    stp_invoice_id: str | None
    stp_subscription_id: str | None
    stp_customer_id: str | None
    created_at: Moment
    """When it was made in Stripe."""
    cancelled_at: Moment | None
    updated_at: Moment


class PaymentsView(Reply):
    """A page of payments."""

    payments: tuple[PaymentView, ...]
    next_cursor: str | None
    """What the next page is asked for with; None after the last."""


class ListPayments(Query, wire="billing.list-payments", audited=True, reply=PaymentsView, refuses=(InvalidCursor,)):
    """Payments, of one user or of all."""

    user_id: NonEmpty | None = None
    """Only this user's."""
    status: NonEmpty | None = None
    """Stripe's word."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: NonEmpty | None = None
    """``next_cursor`` of the page before."""
