"""TODO."""

from typing import Annotated

from pydantic import Field

from shared.messages.billing.errors import InvalidCursor
from shared.messages.billing.stripe_events import StripeReread
from shared.messages.message import Event, Moment, NonEmpty, Part, Query, Reply


class FollowDispute(StripeReread, wire="billing.follow-dispute"):
    """Read a dispute from Stripe and bring our records of it and of its payment to what it says."""

    dispute_id: str
    """Stripe's id, ``dp_…`` or ``du_…``."""


class DisputeEvent(Event):
    """What both events of a dispute say."""

    user_id: str | None
    """None while it is not known whose payment is disputed."""
    dispute_id: str
    """Ours."""
    payment_id: str | None
    """Ours; None for a charge without a payment intent."""
    status: str
    """Stripe's word."""
    reason: str
    """Stripe's word."""
    amount: int
    """What is disputed, in the currency's minor unit."""
    currency: str


class DisputeOpened(DisputeEvent, wire="billing.dispute-opened"):
    """A person asks the bank for money back; an inquiry, ``warning_…``, takes none yet."""


class DisputeClosed(DisputeEvent, wire="billing.dispute-closed"):
    """A dispute came to its end: ``won``, ``lost``, ``prevented`` or ``warning_closed``."""


class DisputeView(Part):
    """A dispute; the amount in the currency's minor unit, as Stripe counts."""

    id: str
    user_id: str | None
    payment_id: str | None
    """Ours."""
    status: str
    reason: str
    amount: int
    currency: str
    respond_by: Moment | None
    """Until when evidence is taken; None where none is."""
    stp_dispute_id: str
    stp_charge_id: str
    stp_payment_intent_id: str | None
    stp_invoice_id: str | None
    stp_subscription_id: str | None
    stp_customer_id: str | None
    created_at: Moment
    """When it was made in Stripe."""
    updated_at: Moment


class DisputesView(Reply):
    """A page of disputes."""

    disputes: tuple[DisputeView, ...]
    next_cursor: str | None
    """As in PaymentsView."""


class ListDisputes(Query, wire="billing.list-disputes", audited=True, reply=DisputesView, refuses=(InvalidCursor,)):
    """Disputes, of one user or of all."""

    user_id: NonEmpty | None = None
    status: NonEmpty | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: NonEmpty | None = None
    """As in ListPayments."""
