"""Disputes: chargebacks and inquiries of a payer's bank, as recorded from Stripe."""

from shared.errors import InvalidCursor
from shared.messages.billing.stripe_events import StripeReread
from shared.messages.message import Event, OperatorList, Part, Reply
from shared.messages.types import Cursor, CursorText, Limit, Many, Moment, NextCursor, NonEmpty


class FollowDispute(StripeReread, wire="billing.follow-dispute"):
    """Re-read a dispute from Stripe and update its record and its payment's."""

    dispute_id: str
    """Stripe's ID, ``dp_…`` or ``du_…``."""


class DisputeEvent(Event):
    """Fields shared by the events of a dispute."""

    user_id: str | None
    """User of the disputed payment; None if unknown."""
    dispute_id: str
    """ID of the dispute's record in billing."""
    payment_id: str | None
    """ID of the payment's record in billing; None for a charge without a payment intent."""
    status: str
    """Stripe's status."""
    reason: str
    """Stripe's reason."""
    amount: int
    """Disputed amount in the currency's minor unit."""
    currency: str
    happened_at: Moment | None = None
    """When it was opened or its funds moved, according to Stripe; None for its end, of which Stripe has no time."""


class DisputeOpened(DisputeEvent, wire="billing.dispute-opened"):
    """A payer asked the bank for the money back. For an inquiry (``warning_…``) none is withheld yet."""


class DisputeClosed(DisputeEvent, wire="billing.dispute-closed"):
    """A dispute ended as ``won``, ``lost``, ``prevented`` or ``warning_closed``."""


class DisputeFundsWithdrawn(DisputeEvent, wire="billing.dispute-funds-withdrawn"):
    """Stripe took the disputed amount from the account."""

    funds: int
    """Sum of all withdrawals of the dispute, in the minor unit of ``funds_currency``."""
    funds_currency: str
    """Currency of the account's balance (ISO 4217), lower case. The payer may have paid in another one."""


class DisputeFundsReinstated(DisputeEvent, wire="billing.dispute-funds-reinstated"):
    """Stripe returned the disputed amount to the account."""

    funds: int
    """Sum of all returns of the dispute, in the minor unit of ``funds_currency``."""
    funds_currency: str
    """Currency of the account's balance (ISO 4217), lower case. The payer may have paid in another one."""


class DisputeView(Part):
    """A dispute."""

    id: str
    """ID of the dispute."""
    user_id: str | None
    """User of the disputed payment; null if unknown."""
    payment_id: str | None
    """ID of the disputed payment; null for a charge without a payment intent."""
    status: str
    """Stripe's status, for example ``needs_response``."""
    reason: str
    """Stripe's reason, for example ``fraudulent``."""
    amount: int
    """Disputed amount in the currency's minor unit, for example cents."""
    currency: str
    """Currency (ISO 4217), lower case."""
    respond_by: Moment | None
    """Deadline for evidence; null if Stripe accepts none."""
    stp_dispute_id: str
    """ID of the dispute in Stripe."""
    stp_charge_id: str
    """ID of the charge in Stripe."""
    stp_payment_intent_id: str | None
    """ID of the payment intent in Stripe."""
    stp_invoice_id: str | None
    """ID of the invoice in Stripe."""
    stp_subscription_id: str | None
    """ID of the subscription in Stripe; null for other payments."""
    stp_customer_id: str | None
    """ID of the customer in Stripe."""
    created_at: Moment
    """When the dispute was opened, according to Stripe."""
    updated_at: Moment
    """When the record last changed."""


class DisputesView(Reply):
    """A page of disputes."""

    disputes: Many[DisputeView]
    """The disputes, newest first."""
    next_cursor: NextCursor


class ListDisputes(
    OperatorList, wire="billing.list-disputes", audited=True, reply=DisputesView, refuses=(InvalidCursor,)
):
    """List disputes."""

    user_id: NonEmpty | None = None
    """Only disputes of this user."""
    status: NonEmpty | None = None
    """Only disputes with this Stripe status."""
    limit: Limit = 100
    cursor: Cursor[CursorText] = None
