"""Queries about invoices."""

from __future__ import annotations

from typing import Final

from services.billing.context import Billing
from services.billing.invoices.pagination import page_of
from services.billing.stripe_api.calls import RESOURCE_MISSING, StripeRefused
from services.billing.stripe_api.payment_models import ListedInvoice
from shared.bus.work import Work
from shared.messages.billing.errors import (
    InvoiceNotFound,
    StripeUnavailable,
    TooManyInvoiceLists,
    TooManyPortalSessions,
)
from shared.messages.billing.invoices import GetInvoiceLink, InvoiceLinkView, InvoicesView, InvoiceView, ListInvoices
from shared.messages.billing.links import invoice_link

MAX_CUSTOMERS: Final = 10
"""Customers of a user whose invoices are listed; each costs a call for every page."""


async def get_invoice_link(query: GetInvoiceLink, work: Work, billing: Billing) -> InvoiceLinkView:
    """Stripe's page of an invoice, read from Stripe now.

    If no invoice of the subscription is open any more, it is a session of the customer portal.

    Raises:
        InvoiceNotFound: the user has no such invoice, or it is a draft.
        TooManyPortalSessions: the links of the user were opened too often.
        StripeUnavailable: Stripe does not answer in time.
    """
    wait = billing.portal_limit.open(query.user_id, at=work.now)
    if wait:
        raise TooManyPortalSessions(retry_after=wait)
    try:
        url = await _url(query, billing)
    except StripeRefused as refused:
        if refused.code == RESOURCE_MISSING:
            raise InvoiceNotFound from refused
        refused.report(invoice=query.invoice_id or query.subscription_id or "")
        raise StripeUnavailable from refused
    if url is None:
        raise InvoiceNotFound
    return InvoiceLinkView(url=url)


async def _url(query: GetInvoiceLink, billing: Billing) -> str | None:
    if query.subscription_id is not None:
        subscription = await billing.subscriptions.find_by_stripe_id(query.subscription_id)
        if subscription is None or subscription.user_id != query.user_id:
            return None
        pages = await billing.stripe.open_invoice_pages(query.subscription_id)
        if pages is not None:
            return pages.hosted_url
        portal = await billing.stripe.portal_url(subscription.stp_customer_id)
        if portal is None:
            raise StripeUnavailable
        return portal
    if query.invoice_id is None:
        return None
    pages = await billing.stripe.invoice_pages(query.invoice_id)
    if pages is None or not await _belongs_to(query.user_id, pages.customer_id, billing):
        return None
    return pages.pdf_url if query.page == "pdf" else pages.hosted_url


async def _belongs_to(user_id: str, customer_id: str, billing: Billing) -> bool:
    """Whether a customer in Stripe is the user's: by its mapping, or by a subscription that was moved to the user."""
    mapping = await billing.mappings.find(customer_id)
    if mapping is not None and mapping.user_id == user_id:
        return True
    return customer_id in await billing.subscriptions.customers_of(user_id)


async def list_invoices(query: ListInvoices, work: Work, billing: Billing) -> InvoicesView:
    """A page of the user's invoices, read from Stripe now.

    Drafts are left out, and invoices for products that Nest does not sell.

    Raises:
        InvalidCursor: no page ended with this cursor.
        TooManyInvoiceLists: the user's invoices were listed too often.
        StripeUnavailable: Stripe does not answer in time.
    """
    customers = await billing.mappings.customers_of(query.user_id)
    customers += await billing.subscriptions.customers_of(query.user_id)
    chosen = sorted(set(customers))[:MAX_CUSTOMERS]
    if not chosen and query.cursor is None:
        return InvoicesView(invoices=(), next_cursor=None)
    wait = billing.list_limit.open(query.user_id, at=work.now)
    if wait:
        raise TooManyInvoiceLists(retry_after=wait)
    work.annotate(user_id=query.user_id)
    try:
        page = await page_of(chosen, limit=query.limit, cursor=query.cursor, billing=billing)
    except StripeRefused as refused:
        refused.report(user=query.user_id)
        raise StripeUnavailable from refused
    ours = [each for each in page.invoices if each.status != "draft" and _sold(each, billing)]
    return InvoicesView(invoices=tuple(map(_view, ours)), next_cursor=page.next_cursor)


def _sold(invoice: ListedInvoice, billing: Billing) -> bool:
    return not billing.products or not invoice.products.isdisjoint(billing.products)


def _view(invoice: ListedInvoice) -> InvoiceView:
    return InvoiceView(
        id=invoice.id,
        number=invoice.number,
        date=invoice.created,
        due_at=invoice.due_at,
        status=invoice.status,
        currency=invoice.currency,
        total=invoice.total,
        amount_due=invoice.amount_due,
        amount_paid=invoice.amount_paid,
        stp_subscription_id=invoice.subscription_id,
        hosted_url=invoice_link(invoice.id, "hosted"),
        pdf_url=invoice_link(invoice.id, "pdf"),
    )
