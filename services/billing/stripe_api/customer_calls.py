"""Calls about what a customer has: active entitlements, pages of invoices, and usage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from services.billing.stripe_api.calls import RESOURCE_MISSING, Calls, StripeRefused
from services.billing.stripe_api.payment_models import InvoicePages, ListedInvoice
from services.billing.stripe_api.payment_parsing import parse_invoice_pages, parse_listed_invoice


@dataclass(frozen=True, slots=True)
class InvoicesPage:
    """A page of a customer's invoices; ``more`` is whether another page follows."""

    invoices: list[ListedInvoice]
    more: bool


class CustomerCalls:
    """The calls of ``Stripe`` about what a customer has."""

    calls: Calls

    async def open_invoice_pages(self, subscription_id: str) -> InvoicePages | None:
        """The pages of the newest open invoice of a subscription, for a waiting caller; None if none is open."""
        params = {"subscription": subscription_id, "status": "open", "limit": 1}
        page = await self.calls.within(self.calls.timeouts.portal).get("open_invoice", "/v1/invoices", params)
        return parse_invoice_pages(page["data"][0]) if page["data"] else None

    async def invoice_pages(self, invoice_id: str) -> InvoicePages | None:
        """The pages of an invoice, for a waiting caller; None if it does not exist."""
        interactive = self.calls.within(self.calls.timeouts.portal)
        try:
            json = await interactive.get("invoice", f"/v1/invoices/{quote(invoice_id, safe='')}", {})
        except StripeRefused as refused:
            if refused.code == RESOURCE_MISSING:
                return None
            raise
        return parse_invoice_pages(json)

    async def invoices_page(self, customer_id: str, *, limit: int, after: str | None) -> InvoicesPage:
        """The next page of a customer's invoices, newest first, for a waiting caller.

        ``after`` is Stripe's ID of the last invoice of the previous page. Raises StripeRefused with code
        ``resource_missing`` if that does not exist any more.
        """
        params = {"customer": customer_id, "limit": limit, **({} if after is None else {"starting_after": after})}
        page = await self.calls.within(self.calls.timeouts.portal).get("list_invoices", "/v1/invoices", params)
        return InvoicesPage([parse_listed_invoice(json) for json in page["data"]], page["has_more"])

    async def active_entitlements(self, customer_id: str) -> list[str]:
        """The lookup keys of a customer's active entitlements (https://docs.stripe.com/billing/entitlements)."""
        pages = self.calls.pages(
            "active_entitlements", "/v1/entitlements/active_entitlements", {"customer": customer_id}
        )
        return sorted({json["lookup_key"] async for json in pages})

    async def send_usage(
        self, *, event_name: str, customer_id: str, value: int, identifier: str, at: datetime, key: str
    ) -> None:
        """Send an entry of usage to a meter (https://docs.stripe.com/api/billing/meter-event/create).

        Stripe checks the customer and the value later, and reports errors by an event.

        Raises:
            KeySpent: the idempotency key repeats a failure; another key may send it.
            StripeRefused: Stripe has the identifier already, or no meter has the event name.
        """
        params = {
            "event_name": event_name,
            "payload": {"stripe_customer_id": customer_id, "value": str(value)},
            "identifier": identifier,
            "timestamp": int(at.timestamp()),
        }
        await self.calls.post("meter_event", "/v1/billing/meter_events", params, key=key)
