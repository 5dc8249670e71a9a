"""A Stripe account: its customers, subscriptions, payments, disputes and events, read one by one or in pages."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, Self
from urllib.parse import quote

from pydantic import SecretStr

from services.billing.stripe_api import calls
from services.billing.stripe_api.calls import RESOURCE_MISSING, Calls, KeySpent, StripeRefused, Timeouts
from services.billing.stripe_api.checkout_sessions import CheckoutSessions
from services.billing.stripe_api.customer_calls import CustomerCalls
from services.billing.stripe_api.lists import LISTS, SUBSCRIPTION_PARTS, Page, StripeList
from services.billing.stripe_api.models import StripeCard, StripeCustomer, StripeSubscription
from services.billing.stripe_api.parsing import (
    Json,
    UnpaidInvoices,
    parse_card,
    parse_customer,
    parse_subscription,
    parse_time,
)
from services.billing.stripe_api.payment_models import StripeCreditNote, StripeDispute, StripeInvoice, StripePayment
from services.billing.stripe_api.payment_parsing import parse_credit_note, parse_dispute, parse_invoice, parse_payment
from services.billing.stripe_api.plan_change_calls import PlanChangeCalls
from services.billing.stripe_api.products import CatalogReads
from services.billing.stripe_api.subscription_changes import SubscriptionChanges
from shared.messages.billing.errors import StripeUnavailable
from shared.telemetry import log

ENDED: Final = ("canceled", "incomplete_expired")
"""Final statuses of a subscription."""
PaymentPart = Literal["charge", "refund", "invoice", "invoice_payment"]
"""Types of objects that belong to payments."""


class Stripe(SubscriptionChanges, CustomerCalls, CatalogReads, CheckoutSessions, PlanChangeCalls):
    """One Stripe account, in the terms of billing.

    Every method ends within its timeout and raises StripeUnavailable as ``Calls`` does. A method that reads one object
    returns None if this account, in this mode, never had it.

    Args:
        calls: to the account.
        portal_return_url: page to which the customer portal leads back.
        products: those that Nest sells; empty for all.
    """

    def __init__(self, calls: Calls, *, portal_return_url: str, products: frozenset[str] = frozenset()) -> None:
        super().__init__(calls)
        self._products = products
        self._portal_return_url = portal_return_url

    def within(self, seconds: float) -> Self:
        """The same account for an interactive caller: all calls end within so many seconds from now."""
        interactive = copy.copy(self)
        interactive.calls = self.calls.within(seconds)
        return interactive

    def low_priority(self) -> Self:
        """The same account for work that can wait: its calls have a lower rate and yield to all others."""
        yielding = copy.copy(self)
        yielding.calls = self.calls.low_priority()
        return yielding

    async def subscription(self, subscription_id: str) -> StripeSubscription | None:
        """A subscription with all its items."""
        path = f"/v1/subscriptions/{_quoted(subscription_id)}"
        json = await self._find("subscription", path, expand=SUBSCRIPTION_PARTS)
        try:
            return None if json is None else await self.complete_subscription(json)
        except StripeRefused as refused:
            if refused.code == RESOURCE_MISSING:
                return None
            raise

    async def complete_subscription(self, json: Json) -> StripeSubscription:
        """Parse a subscription after reading the items and unpaid invoices that its JSON lacks.

        The JSON has the parts of ``parse_subscription`` expanded. Raises StripeRefused with code ``resource_missing``
        if the subscription was deleted meanwhile.
        """
        items = await self._all_items(json)
        unpaid = await self._unpaid_invoices(json["id"]) if json["status"] in ("past_due", "unpaid") else None
        return parse_subscription(json, items, products=self._products, unpaid=unpaid)

    async def customer(self, customer_id: str) -> StripeCustomer | None:
        """A customer, deleted ones included."""
        json = await self._find("customer", f"/v1/customers/{_quoted(customer_id)}")
        return None if json is None else parse_customer(json)

    async def card(self, payment_method_id: str) -> StripeCard | None:
        """A stored card; None also for another payment method."""
        json = await self._find("payment_method", f"/v1/payment_methods/{_quoted(payment_method_id)}")
        return None if json is None else parse_card(json)

    async def subscription_ids(self, customer_id: str, *, trial_id: str | None = None) -> list[str]:
        """IDs of a customer's subscriptions, or of those made for a trial; newest first, ended ones included."""
        # Without ``status`` Stripe leaves out ended subscriptions.
        params = {"customer": customer_id, "status": "all"}
        return [
            json["id"]
            async for json in self.calls.pages("subscriptions", "/v1/subscriptions", params)
            if trial_id is None or json["metadata"].get("trial_id") == trial_id
        ]

    async def subscriptions_of_schedule(self, schedule_id: str) -> list[str] | None:
        """The ID of the subscription that a schedule manages or has released, if it has started one.

        None if this account, in this mode, has no such schedule.
        """
        json = await self._find("schedule", f"/v1/subscription_schedules/{_quoted(schedule_id)}")
        return None if json is None else list(filter(None, [json["subscription"] or json["released_subscription"]]))

    async def is_only_subscription(self, subscription_id: str, customer_id: str) -> bool:
        """Whether a customer has no other subscription that has not ended."""
        others = self.calls.pages("subscriptions", "/v1/subscriptions", {"customer": customer_id})
        return not [json async for json in others if json["id"] != subscription_id and json["status"] not in ENDED]

    async def payment(self, intent_id: str) -> StripePayment | None:
        """A payment intent with its invoice."""
        path = f"/v1/payment_intents/{_quoted(intent_id)}"
        json = await self._find("payment_intent", path, expand=["customer", "latest_charge"])
        return None if json is None else await self.complete_payment(json)

    async def complete_payment(self, json: Json) -> StripePayment:
        """Parse a payment intent after reading its invoice, which its JSON does not name.

        The JSON has ``customer`` and ``latest_charge`` expanded.
        """
        return parse_payment(json, await self._invoice_of(json["id"]))

    async def complete_invoice_payment(self, json: Json) -> StripePayment | None:
        """The payment in an entry of the list of invoice payments; None if it is no payment intent."""
        intent: Json | None = json["payment"].get("payment_intent")
        return None if intent is None else parse_payment(intent, await self._parsed_invoice(json["invoice"]))

    async def dispute(self, dispute_id: str) -> StripeDispute | None:
        """A dispute with its charge."""
        json = await self._find("dispute", f"/v1/disputes/{_quoted(dispute_id)}", expand=["charge"])
        return None if json is None else parse_dispute(json)

    async def credit_note(self, credit_note_id: str) -> StripeCreditNote | None:
        """A credit note."""
        json = await self._find("credit_note", f"/v1/credit_notes/{_quoted(credit_note_id)}")
        return None if json is None else parse_credit_note(json)

    async def payment_intents_of(self, part: PaymentPart, object_id: str) -> list[str] | None:
        """The IDs of the payment intents to which an object belongs; none for a charge without a payment intent.

        None if this account, in this mode, has no such object.

        Stripe's objects are linked in this order: dispute, charge, payment intent, invoice payment, invoice,
        subscription, customer. Until API version 2025-03-31.basil an invoice named its one payment intent; now it may
        have several, each linked by an invoice payment
        (https://docs.stripe.com/changelog/basil/2025-03-31/add-support-for-multiple-partial-payments-on-invoices).

        An invoice and each of its payments yield all payments of the invoice: a part that was paid changes the amount
        of the others, and Stripe sends no event about that.
        """
        if part == "invoice" and (intent_ids := await self._payment_intents_of_invoice(object_id)):
            return intent_ids
        json = await self._find(part, f"/v1/{part}s/{_quoted(object_id)}")
        if json is None:
            return None
        if part == "invoice":
            return []
        if part == "invoice_payment":
            return await self.payment_intents_of("invoice", json["invoice"])
        return [] if json["payment_intent"] is None else [json["payment_intent"]]

    async def event(self, event_id: str) -> Json | None:
        """An event; Stripe keeps them for 30 days."""
        return await self._find("event", f"/v1/events/{_quoted(event_id)}")

    async def list_page(self, name: StripeList, *, after: str | None, expanded: bool = True) -> Page:
        """The next page of all objects of a kind; ``after`` is Stripe's ID of the last entry of the previous page.

        Without ``expanded`` the entries have only the IDs of related objects.
        """
        path, params = LISTS[name]
        if not expanded:
            params = {name: value for name, value in params.items() if name != "expand"}
        return await self._page(f"list_{name}", path, params, after)

    async def events_page(self, *, after: str | None, **filters: Any) -> Page:
        """The next page of the account's events of the last 30 days, after the event with the ID ``after``.

        ``filters`` are Stripe's parameters ``types``, ``created`` and ``delivery_success``.
        """
        return await self._page("list_events", "/v1/events", {"limit": 100, **filters}, after)

    async def customer_id_of(self, user_id: str, email: str | None) -> str | None:
        """The ID of the customer that was created for a user with this address; None if there is none.

        Reads the list of customers with this address, since Stripe's search lags by up to a minute.
        """
        if email is None:
            return None
        async for json in self.calls.pages("customers", "/v1/customers", {"email": email}):
            if json["metadata"].get("user_id") == user_id:
                return str(json["id"])
        return None

    async def create_customer(self, *, email: str | None, user_id: str, key: str) -> str:
        """Create the customer of a user and return its ID.

        Raises:
            KeySpent: the idempotency key can no longer create one; look whether it exists.
            StripeRefused: the address, above all, is invalid.
        """
        params: Json = {"metadata": {"user_id": user_id}, **({} if email is None else {"email": email})}
        return str((await self.calls.post("create_customer", "/v1/customers", params, key=key))["id"])

    async def delete_customer(self, customer_id: str, *, key: str) -> None:
        """Delete a customer in Stripe, which ends its subscriptions; do nothing if it does not exist.

        Stripe keeps its payments, as the law requires (https://docs.stripe.com/api/customers/delete).

        Raises:
            KeySpent: the idempotency key can no longer delete it; another key may.
            StripeRefused: Stripe rejected the request.
        """
        try:
            await self.calls.delete("delete_customer", f"/v1/customers/{_quoted(customer_id)}", {}, key=key)
        except StripeRefused as refused:
            if refused.code != RESOURCE_MISSING:
                raise

    async def portal_url(self, customer_id: str) -> str | None:
        """The URL of a new session of a customer's portal, which only that person may see: never store, mail or log it.

        Returns:
            None if Stripe creates none in time, for any reason.
        """
        params = {"customer": customer_id, "return_url": self._portal_return_url}
        try:
            session = await self.calls.within(self.calls.timeouts.portal).post(
                "portal", "/v1/billing_portal/sessions", params, max_attempts=2
            )
        except StripeUnavailable:
            return None
        except StripeRefused as refused:
            # Above all, the portal is not configured.
            refused.report(customer=customer_id)
            return None
        except KeySpent:
            log.warning("stripe creates no portal link", customer=customer_id)
            return None
        return str(session["url"])

    async def open_invoice_url(self, subscription_id: str) -> str | None:
        """Where the person can pay the newest open invoice of a subscription; as secret as ``portal_url``.

        Returns:
            None if there is none, or Stripe does not return it in time.
        """
        try:
            pages = await self.open_invoice_pages(subscription_id)
        except StripeUnavailable:
            return None
        except StripeRefused as refused:
            refused.report(subscription=subscription_id)
            return None
        return None if pages is None else pages.hosted_url

    async def _find(self, name: str, path: str, *, expand: Sequence[str] = ()) -> Json | None:
        try:
            return await self.calls.get(name, path, {"expand": list(expand)} if expand else {})
        except StripeRefused as refused:
            if refused.code == RESOURCE_MISSING:
                return None
            raise

    async def _page(self, name: str, path: str, params: Json, after: str | None) -> Page:
        cursor = {} if after is None else {"starting_after": after}
        page = await self.calls.get(name, path, {**params, **cursor})
        return Page(page["data"], page["has_more"])

    async def _invoice_of(self, intent_id: str) -> StripeInvoice | None:
        """The invoice that a payment intent pays; the first of several, which subscriptions never have."""
        params: Json = {
            "payment": {"type": "payment_intent", "payment_intent": intent_id},
            "expand": ["data.invoice"],
        }
        invoice_payments = [each async for each in self.calls.pages("invoice_payments", "/v1/invoice_payments", params)]
        if not invoice_payments:
            return None
        return await self._parsed_invoice(invoice_payments[-1]["invoice"])

    async def _parsed_invoice(self, json: Json) -> StripeInvoice:
        return parse_invoice(json, await self._all_lines(json) if self._products else [])

    async def _payment_intents_of_invoice(self, invoice_id: str) -> list[str]:
        pages = self.calls.pages("invoice_payments", "/v1/invoice_payments", {"invoice": invoice_id})
        try:
            # An invoice payment may also be a charge or a record of money received outside of Stripe.
            return sorted({intent async for each in pages if (intent := each["payment"].get("payment_intent"))})
        except StripeRefused as refused:
            if refused.code == RESOURCE_MISSING:
                return []
            raise

    async def _unpaid_invoices(self, subscription_id: str) -> UnpaidInvoices:
        """The open invoices of a subscription; none if they were paid a moment ago.

        Stripe does not say since when a subscription is past due, and each renewal begins a new period, paid or not.
        """
        params = {"subscription": subscription_id, "status": "open"}
        opened = [invoice async for invoice in self.calls.pages("invoices", "/v1/invoices", params)]
        paid_before = False
        async for invoice in self.calls.pages("invoices", "/v1/invoices", {**params, "status": "paid"}):
            # The invoice of a trial is zero, and counts as paid.
            if invoice["total"] > 0:
                paid_before = True
                break
        return UnpaidInvoices(
            since=parse_time(min(invoice["created"] for invoice in opened)) if opened else None,
            payment_link=opened[0]["hosted_invoice_url"] if opened else None,
            paid_before=paid_before,
        )

    async def _all_items(self, json: Json) -> list[Json]:
        """The items of a subscription; Stripe truncates a list inside of another object after ten."""
        nested = json["items"]
        if not nested["has_more"]:
            return list(nested["data"])
        params = {"subscription": json["id"]}
        return [item async for item in self.calls.pages("items", "/v1/subscription_items", params)]

    async def _all_lines(self, invoice: Json) -> list[Json]:
        """The lines of an invoice, whose list is truncated too."""
        nested = invoice["lines"]
        if not nested["has_more"]:
            return list(nested["data"])
        path = f"/v1/invoices/{_quoted(invoice['id'])}/lines"
        return [line async for line in self.calls.pages("invoice_lines", path, {})]


def _quoted(identifier: str) -> str:
    return quote(identifier, safe="")


@asynccontextmanager
async def open_account(
    *,
    api_key: SecretStr,
    api_base: str | None,
    rate: float,
    portal_return_url: str,
    products: frozenset[str] = frozenset(),
    timeouts: Timeouts | None = None,
) -> AsyncIterator[Stripe]:
    """A Stripe account, in the mode of its API key; its connections are closed when the block ends.

    ``api_base``, if given, replaces Stripe's base URL. ``rate`` is in calls per second of this process. The customer
    portal leads back to ``portal_return_url``. Nest sells ``products`` of the account; empty for all.
    """
    async with calls.open_calls(
        api_key=api_key, api_base=api_base, rate=rate, timeouts=timeouts or Timeouts()
    ) as opened_calls:
        yield Stripe(opened_calls, portal_return_url=portal_return_url, products=products)
