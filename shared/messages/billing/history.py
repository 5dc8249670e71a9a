"""Billing history of a user: every change of money or access, in order; Stripe's events beside it; and credit notes."""

from typing import Annotated

from pydantic import Field

from shared.errors import InvalidCursor
from shared.messages.billing.stripe_events import StripeReread
from shared.messages.billing.subscriptions import PlanItem
from shared.messages.message import Event, OperatorList, Part, Reply
from shared.messages.types import Cursor, CursorText, Limit, Many, Moment, NextCursor, NonEmpty


class FollowCreditNote(StripeReread, wire="billing.follow-credit-note"):
    """Re-read a credit note from Stripe and announce it."""

    credit_note_id: str
    """Stripe's ID, ``cn_…``."""


class CreditNoteEvent(Event):
    """Fields shared by the events of a credit note."""

    user_id: str
    stp_credit_note_id: str
    """Stripe's ID, ``cn_…``."""
    stp_invoice_id: str
    """Stripe's ID of the invoice."""
    status: str
    """Stripe's status: ``issued`` or ``void``."""
    reason: str | None
    """Stripe's reason, for example ``duplicate``; None if none was given."""
    amount: int
    """Credited amount in the currency's minor unit."""
    currency: str
    """ISO 4217, lower case."""
    happened_at: Moment | None = None
    """When it was issued or voided, according to Stripe."""


class CreditNoteIssued(CreditNoteEvent, wire="billing.credit-note-issued"):
    """An invoice was credited, in full or in part (https://docs.stripe.com/api/credit_notes)."""


class CreditNoteVoided(CreditNoteEvent, wire="billing.credit-note-voided"):
    """A credit note was voided."""


class BillingHistoryEntry(Part):
    """A change of a user's money or access. Fields that the change does not have are null."""

    id: str
    """ID of the entry."""
    at: Moment
    """When it happened according to Stripe; when Nest recorded it if Stripe has no time for it."""
    event: str
    """Name of the change, for example ``payment-refunded``."""
    subscription_id: str | None = None
    """ID of the subscription."""
    payment_id: str | None = None
    """ID of the payment."""
    dispute_id: str | None = None
    """ID of the dispute."""
    stp_credit_note_id: str | None = None
    """ID of the credit note in Stripe."""
    status: str | None = None
    """Stripe's status after the change."""
    reason: str | None = None
    """Why it ended, was disputed or was credited."""
    failure: str | None = None
    """Stripe's code of a failed payment, for example ``card_declined``."""
    decline: str | None = None
    """The bank's decline code, for example ``insufficient_funds``."""
    amount: int | None = None
    """Amount of the payment, the dispute or the credit note, in the currency's minor unit, for example cents."""
    amount_refunded: int | None = None
    """Sum of all refunds of the payment."""
    funds: int | None = None
    """Sum that Stripe has withdrawn from the account for a dispute, or reinstated, in minor units."""
    funds_currency: str | None = None
    """Currency of ``funds``, that of the account's balance."""
    currency: str | None = None
    """Currency (ISO 4217), lower case."""
    entitled: bool | None = None
    """Whether the user had access after the change."""
    ends_at: Moment | None = None
    """End of a subscription that was cancelled, or of a trial that started."""
    renews_at: Moment | None = None
    """End of the current period of a subscription whose cancellation was withdrawn."""
    before: Many[PlanItem] = ()
    """Prices and quantities before a change of the plan."""
    after: Many[PlanItem] = ()
    """Prices and quantities after a change of the plan."""


class BillingHistoryView(Reply):
    """A page of a user's billing history."""

    entries: Many[BillingHistoryEntry]
    """The entries, newest first."""
    next_cursor: NextCursor


class ListBillingHistory(
    OperatorList, wire="billing.list-billing-history", audited=True, reply=BillingHistoryView, refuses=(InvalidCursor,)
):
    """List the changes of a user's money and access.

    These are the changes of subscriptions and plans, payments, refunds, disputes with their funds, and credit notes.
    """

    user_id: Annotated[NonEmpty, Field(description="ID of the user.")]
    limit: Limit = 100
    cursor: Cursor[CursorText] = None


class ListedStripeEvent(Part):
    """A Stripe event about an object of a user, as Nest received it."""

    stp_event_id: str
    """ID of the event in Stripe, ``evt_…``."""
    type: str
    """Stripe's type, for example ``invoice.payment_failed``."""
    object_type: str
    """Stripe's type of the object that it is about, for example ``invoice``."""
    object_id: str
    """ID of the object in Stripe; of the customer for a summary of entitlements, which has no ID."""
    made_at: Moment
    """When Stripe created it, in whole seconds."""
    received_at: Moment
    """When Nest first received it."""
    handled_at: Moment | None
    """When its outcome was recorded; null while it is pending."""
    outcome: str | None
    """What became of it; null while it is pending.

    ``read``: its object was read from Stripe, and recorded. ``missing``: Stripe has no such object. ``refused``: Stripe
    refused to show the object. ``nobody``: no user was found for it. ``erased``: it is about an erased user.
    ``other_account``, ``other_product``, ``other_mode``: it is of a connected account, of a product that Nest does not
    sell, or of the other mode, live or test. ``not_followed``: Nest does not handle its type.
    """


class StripeEventsView(Reply):
    """A page of the Stripe events about a user's objects."""

    events: Many[ListedStripeEvent]
    """The events, newest first by ``made_at``."""
    next_cursor: NextCursor


class ListStripeEvents(
    OperatorList, wire="billing.list-stripe-events", audited=True, reply=StripeEventsView, refuses=(InvalidCursor,)
):
    """List the Stripe events about a user's objects, pending ones too.

    These are the events about the user's customers, subscriptions, Checkout Sessions, payments, charges, refunds,
    invoices, disputes and credit notes: about the newest 200 of these objects. Nest keeps an event for as long as
    `NEST_STRIPE_EVENTS_RETENTION_DAYS` says.
    """

    user_id: Annotated[NonEmpty, Field(description="ID of the user.")]
    limit: Limit = 100
    cursor: Cursor[CursorText] = None
