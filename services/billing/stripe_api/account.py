"""What does Stripe say, and what is ordered of it, about customers and subscriptions?"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, Self
from urllib.parse import quote

from services.billing.stripe_api import calls
from services.billing.stripe_api.calls import Calls, KeySpent, Patience, StripeRefused
from services.billing.stripe_api.models import StripeCustomer, StripeSubscription
from services.billing.stripe_api.parsing import (
    COUPON_COMMENT,
    DUPLICATE_COMMENT,
    Json,
    customer_of,
    moment,
    subscription_of,
)
from shared.messages.billing.errors import StripeUnavailable
from shared.telemetry import log

TRIAL_DAYS: Final = 14


class Stripe:
    """One Stripe account, in our words.

    Every call ends within its time and raises StripeUnavailable as ``Calls`` says.

    Args:
        calls: to the account.
        portal_return_url: where the customer portal leads back to.
    """

    def __init__(self, calls: Calls, *, portal_return_url: str) -> None:
        self.calls = calls
        self._portal_return_url = portal_return_url

    def within(self, seconds: float) -> Self:
        """The same account, for somebody who waits: the calls all end within some seconds from now."""
        bounded = copy.copy(self)
        bounded.calls = self.calls.within(seconds)
        return bounded

    def behind(self) -> Self:
        """The same account, for work that has time: it takes only places that nobody else wants."""
        patient = copy.copy(self)
        patient.calls = self.calls.behind()
        return patient

    async def subscription(self, subscription_id: str) -> StripeSubscription | None:
        """A subscription as it is now, with all its items; None if this account, in this mode, never had it.

        Raises:
            StripeUnavailable: as said above.
        """
        path = f"/v1/subscriptions/{quote(subscription_id, safe='')}"
        try:
            found = await self.calls.get("subscription", path, {"expand": ["customer", "discounts"]})
            return await self.whole_subscription(found)
        except StripeRefused as refused:
            if refused.code == "resource_missing":
                return None
            raise

    async def whole_subscription(self, found: Json) -> StripeSubscription:
        """A subscription with what its own JSON lacks.

        Args:
            found: with ``customer`` and ``discounts`` expanded.

        Raises:
            StripeRefused: with code ``resource_missing`` when it has gone meanwhile.
            StripeUnavailable: as said above.
        """
        items = await self._all_items(found)
        overdue_since = await self._overdue_since(found["id"]) if found["status"] == "past_due" else None
        return subscription_of(found, items, overdue_since=overdue_since)

    async def customer(self, customer_id: str) -> StripeCustomer | None:
        """A customer as it is now, deleted ones too; None if this account never had it.

        Raises:
            StripeUnavailable: as said above.
        """
        try:
            return customer_of(await self.calls.get("customer", f"/v1/customers/{quote(customer_id, safe='')}", {}))
        except StripeRefused as refused:
            if refused.code == "resource_missing":
                return None
            raise

    async def subscription_ids(self, customer_id: str, *, trial_id: str | None = None) -> list[str]:
        """The ids of all subscriptions of a customer, ended ones too, newest first.

        Args:
            customer_id: whose.
            trial_id: only those made for this trial.

        Raises:
            StripeUnavailable: as said above.
        """
        # Without a status Stripe leaves out the ended ones.
        wanted = {"customer": customer_id, "status": "all"}
        return [
            found["id"]
            async for found in self.calls.pages("subscriptions", "/v1/subscriptions", wanted)
            if trial_id is None or found["metadata"].get("trial_id") == trial_id
        ]

    async def trial_customer_id(self, email: str, trial_id: str) -> str | None:
        """The customer that was made for a trial, if it was. Looks in a list: searching lags by up to a minute.

        Raises:
            StripeUnavailable: as said above.
        """
        async for found in self.calls.pages("customers", "/v1/customers", {"email": email}):
            if found["metadata"].get("trial_id") == trial_id:
                return str(found["id"])
        return None

    async def create_customer(self, *, email: str, user_id: str, trial_id: str, key: str) -> str:
        """Make the customer of a user for a trial; returns its id.

        Raises:
            KeySpent: the key won't make one; look whether there is one.
            StripeRefused: the address, above all.
            StripeUnavailable: as said above.
        """
        params = {"email": email, "metadata": {"user_id": user_id, "trial_id": trial_id}}
        return str((await self.calls.post("create_customer", "/v1/customers", params, key=key))["id"])

    async def delete_customer(self, customer_id: str, *, key: str) -> None:
        """Have Stripe forget a customer for good, which ends its subscriptions; one that is gone stays so.

        What was paid stays in Stripe, as the law wants it (https://docs.stripe.com/api/customers/delete).

        Raises:
            KeySpent: the key won't do it; another may.
            StripeRefused, StripeUnavailable: as said above.
        """
        try:
            await self.calls.delete("delete_customer", f"/v1/customers/{quote(customer_id, safe='')}", {}, key=key)
        except StripeRefused as refused:
            if refused.code != "resource_missing":
                raise

    async def create_trial(self, *, customer_id: str, price: str, user_id: str, trial_id: str, key: str) -> str:
        """Make a subscription that begins with 14 days for free; returns its id.

        Raises:
            KeySpent: the key won't make one; look whether there is one.
            StripeRefused, StripeUnavailable: as said above.
        """
        params = {
            "customer": customer_id,
            "items": [{"price": price}],
            "trial_period_days": TRIAL_DAYS,
            # Nobody gave a card. By default Stripe would make an invoice then that nobody pays, and try to collect it
            # for weeks; ended, the person can subscribe anew.
            "trial_settings": {"end_behavior": {"missing_payment_method": "cancel"}},
            "metadata": {"user_id": user_id, "trial_id": trial_id},
        }
        return str((await self.calls.post("create_trial", "/v1/subscriptions", params, key=key))["id"])

    async def cancel_duplicate(self, subscription_id: str, *, kept_subscription_id: str, key: str) -> None:
        """End a subscription now, prorated and invoiced now, and write on it which one of ours was kept.

        One that has ended already stays as it is.

        Raises:
            StripeRefused, StripeUnavailable: as said above.
        """
        await self._cancel(subscription_id, f"{DUPLICATE_COMMENT}{kept_subscription_id}", key)

    async def cancel_without_coupon(self, subscription_id: str, *, key: str) -> None:
        """End a subscription that lacks the coupon every one needs here, as ``cancel_duplicate`` does.

        Raises:
            StripeRefused, StripeUnavailable: as said above.
        """
        await self._cancel(subscription_id, COUPON_COMMENT, key)

    async def portal_url(self, customer_id: str) -> str | None:
        """A short-lived link to a customer's portal, for that person alone: never to be stored, mailed or logged.

        Returns:
            None when Stripe doesn't give one in time, for whatever reason.
        """
        params = {"customer": customer_id, "return_url": self._portal_return_url}
        try:
            session = await self.calls.within(self.calls.patience.portal).post(
                "portal", "/v1/billing_portal/sessions", params, tries=2
            )
        except StripeUnavailable:
            return None
        except (StripeRefused, KeySpent) as failure:
            log.warning("stripe gives no portal link", customer=customer_id, error=str(failure))
            return None
        return str(session["url"])

    async def _cancel(self, subscription_id: str, comment: str, key: str) -> None:
        params = {"prorate": True, "invoice_now": True, "cancellation_details": {"comment": comment}}
        path = f"/v1/subscriptions/{quote(subscription_id, safe='')}"
        try:
            await self.calls.delete("cancel", path, params, key=key)
        except StripeRefused as refused:
            # What Stripe says of a subscription that is over; whoever asked reads it again anyway.
            if refused.code != "resource_missing":
                raise

    async def _overdue_since(self, subscription_id: str) -> datetime | None:
        """When the oldest invoice was made that waits to be paid; None if it was paid a moment ago.

        Stripe tells nowhere since when a subscription is past due, and each renewal begins a new period, paid or not.
        """
        wanted = {"subscription": subscription_id, "status": "open"}
        made = [invoice["created"] async for invoice in self.calls.pages("invoices", "/v1/invoices", wanted)]
        return moment(min(made)) if made else None

    async def _all_items(self, found: Json) -> list[Json]:
        """The items of a subscription; Stripe cuts a list inside of another object at ten."""
        nested = found["items"]
        if not nested["has_more"]:
            return list(nested["data"])
        wanted = {"subscription": found["id"]}
        return [item async for item in self.calls.pages("items", "/v1/subscription_items", wanted)]


@asynccontextmanager
async def opened(
    *, api_key: str, api_base: str | None, rate: float, portal_return_url: str, patience: Patience | None = None
) -> AsyncIterator[Stripe]:
    """A Stripe account, its connections closed at the end.

    Args:
        api_key: of the account, in one of its modes.
        api_base: where to call instead of Stripe; None for Stripe itself.
        rate: calls a second, for this process.
        portal_return_url: where the customer portal leads back to.
        patience: how long a call may take.
    """
    async with calls.opened(
        api_key=api_key, api_base=api_base, rate=rate, patience=patience or Patience()
    ) as opened_calls:
        yield Stripe(opened_calls, portal_return_url=portal_return_url)
