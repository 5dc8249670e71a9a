"""Invoices: Stripe's pages of them, which pay or show them."""

from typing import Literal

from shared.messages.billing.errors import InvoiceNotFound, TooManyPortalSessions
from shared.messages.message import Query, Reply
from shared.messages.types import ClientId, StripeId, UserId


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
