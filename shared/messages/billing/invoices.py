"""Invoices: their list, and Stripe's pages of them, which pay or show them."""

from typing import Annotated, Literal

from pydantic import Field

from shared.errors import InvalidCursor
from shared.messages.billing.errors import InvoiceNotFound, TooManyInvoiceLists, TooManyPortalSessions
from shared.messages.message import Part, Query, Reply
from shared.messages.types import ClientId, Cursor, CursorText, Many, Moment, NextCursor, StripeId, UserId


class InvoiceLinkView(Reply):
    """A page of Stripe."""

    url: str
    """Stripe's page or PDF of the invoice, or a session of the customer portal if no invoice is open. It works for
    everyone who has it."""


class GetInvoiceLink(
    Query,
    wire="billing.get-invoice-link",
    reply=InvoiceLinkView,
    reply_sealed=True,
    refuses=(InvoiceNotFound, TooManyPortalSessions),
):
    """Get Stripe's page of an invoice of a user. Needs ``subscription_id`` or ``invoice_id``."""

    user_id: UserId
    client_id: ClientId | None = None
    """The client that showed the link; None for a back end."""
    subscription_id: StripeId | None = None
    """Stripe's ID of the subscription whose newest open invoice the person pays."""
    invoice_id: StripeId | None = None
    """Stripe's ID of the invoice."""
    page: Literal["hosted", "pdf"] = "hosted"


class InvoiceView(Part):
    """An invoice. Amounts are in the currency's minor unit as Stripe counts them, for example cents."""

    id: str
    """ID of the invoice in Stripe."""
    number: str | None
    """Number on the invoice."""
    date: Moment
    """When it was created."""
    due_at: Moment | None
    """When it has to be paid; null if it is collected automatically."""
    status: str
    """``open``, ``paid``, ``void`` or ``uncollectible``."""
    currency: str
    """Currency (ISO 4217), lower case."""
    total: int
    """Amount with taxes and discounts."""
    amount_due: int
    """Amount to be paid."""
    amount_paid: int
    """Amount that was paid."""
    stp_subscription_id: str | None
    """ID of the subscription in Stripe; null for an invoice without one."""
    hosted_url: str | None
    """Link to the page of the invoice, ``<issuer>/invoice/…``, on which an open one is paid. It works for an hour, for
    everyone who has it."""
    pdf_url: str | None
    """Link to the PDF of the invoice, like ``hosted_url``."""


class InvoicesView(Reply):
    """A page of invoices."""

    invoices: Many[InvoiceView]
    """The invoices, newest first, without drafts. A page may have fewer than ``limit`` and not be the last one."""
    next_cursor: NextCursor


class ListInvoices(
    Query,
    wire="billing.list-invoices",
    audited=True,
    reply=InvoicesView,
    refuses=(InvalidCursor, TooManyInvoiceLists),
):
    """List the invoices of a user, read from Stripe now."""

    user_id: UserId
    limit: Annotated[int, Field(ge=1, le=100, description="Maximum number of entries in the page.")] = 20
    cursor: Cursor[CursorText] = None
