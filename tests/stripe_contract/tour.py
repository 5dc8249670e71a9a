"""Requests for every route of the double that other tests may not make."""

from datetime import timedelta
from typing import Any

import httpx

from services.stripe_double import StripeDouble, checkout_sessions
from services.stripe_double.api import ROUTES

_API_KEY = "sk_test_tour"


class Tour:
    """A double with objects of all kinds, and a client of it."""

    def __init__(self, double: StripeDouble, client: httpx.AsyncClient) -> None:
        self.double = double
        self.client = client

    async def post(self, path: str, **form: str) -> dict[str, Any]:
        """Make an object that the tour needs."""
        response = await self.client.post(path, data=form)
        assert response.status_code == 200, response.text
        made: dict[str, Any] = response.json()
        return made

    async def make_objects(self) -> None:
        """Make objects of all kinds, in the statuses that no other test makes."""
        simulate, clock = self.double.simulate, self.double.clock
        form = {"currency": "usd", "unit_amount": "500", "recurring[interval]": "month", "product_data[name]": "Beak"}
        price = (await self.post("/v1/prices", **form))["id"]
        coupon = (await self.post("/v1/coupons", percent_off="50", duration="forever"))["id"]
        await self.post("/v1/promotion_codes", **{"promotion[type]": "coupon", "promotion[coupon]": coupon})
        await self.post("/v1/tax_rates", display_name="VAT", percentage="19", inclusive="true")
        made = simulate.checkout(price, email="ada@example.com", coupon=coupon)
        simulate.refund(made["id"], amount=1)
        inquiry = simulate.dispute(made["id"], inquiry=True)
        await self.post(f"/v1/disputes/{inquiry['id']}", **{"evidence[customer_name]": "Ada"})
        await self.post(f"/v1/customers/{made['customer']}/balance_transactions", amount="5", currency="usd")
        await self._credit(made["latest_invoice"], price)
        portal = {"features[invoice_history][enabled]": "true"}
        await self.post("/v1/billing_portal/configurations", **portal)
        await self.post("/v1/webhook_endpoints", url="https://example.com/hook", **{"enabled_events[0]": "*"})
        schedule = await self.post("/v1/subscription_schedules", from_subscription=made["id"])
        await self.post(f"/v1/subscription_schedules/{schedule['id']}", end_behavior="cancel")
        cancelled = simulate.checkout(price, customer=made["customer"])
        schedule = await self.post("/v1/subscription_schedules", from_subscription=cancelled["id"])
        await self.post(f"/v1/subscription_schedules/{schedule['id']}/cancel")
        await self._sell(price)
        await self._meter(made["customer"])
        renewing = simulate.checkout(price, customer=made["customer"])
        # The schedule completes, and the other subscription has the draft of its renewal.
        period_end = renewing["items"]["data"][0]["current_period_end"]
        await clock.advance(timedelta(seconds=period_end - clock.now() + 300))

    async def _credit(self, paid: str, price: str) -> None:
        """Make a credit note of a paid invoice, and a void one of an open invoice."""
        await self.post("/v1/credit_notes", invoice=paid, amount="1")
        unpaid = self.double.simulate.checkout(price, email="joan@example.com", payment_method=None)
        note = await self.post("/v1/credit_notes", invoice=unpaid["latest_invoice"], amount="1")
        await self.post(f"/v1/credit_notes/{note['id']}/void")

    async def _sell(self, price: str) -> None:
        """Make two Checkout Sessions, one expired, one complete, and a feature of the product."""
        line = {"line_items[0][price]": price, "line_items[0][quantity]": "2", "mode": "subscription"}
        for email in ("grace@example.com", "hedy@example.com"):
            form = {**line, "customer_email": email, "success_url": "https://example.com/"}
            session = await self.post("/v1/checkout/sessions", **form)
        await self.post(f"/v1/checkout/sessions/{session['id']}/expire")
        account = self.double.account
        with account.change():
            checkout_sessions.complete(account, account.all("checkout.session")[-1], "pm_card_visa")
        feature = await self.post("/v1/entitlements/features", name="Seats", lookup_key="seats")
        product = self.double.object("price", price)["product"]
        attached = await self.post(f"/v1/products/{product}/features", entitlement_feature=feature["id"])
        await self.client.get(f"/v1/products/{product}/features/{attached['id']}")

    async def _meter(self, customer: str) -> None:
        """Make a meter with usage."""
        aggregation = {"default_aggregation[formula]": "sum"}
        meter = await self.post("/v1/billing/meters", display_name="Calls", event_name="calls", **aggregation)
        usage = {"payload[stripe_customer_id]": customer, "payload[value]": "3"}
        await self.post("/v1/billing/meter_events", event_name="calls", **usage)
        minute = self.double.clock.now() // 60 * 60
        times = {"start_time": str(minute - 3600), "end_time": str(minute + 60)}
        summaries = f"/v1/billing/meters/{meter['id']}/event_summaries"
        await self.client.get(summaries, params={"customer": customer, **times})
        await self.post(f"/v1/billing/meters/{meter['id']}", display_name="Calls made")
        for change in ("deactivate", "reactivate"):
            await self.post(f"/v1/billing/meters/{meter['id']}/{change}")

    async def visit(self) -> None:
        """Read every list and an object of each kind, and send metadata to every object that takes it."""
        for name in ROUTES:
            method, path = name.split(" ")
            collection = path.split("/{}")[0]
            identifier = await self._first(collection) if "{}" in path else ""
            target = path.replace("{}", identifier)
            if method == "GET":
                await self.client.get(target, params=await self._needed(path))
            elif path == f"{collection}/{{}}":
                await self.client.post(target, data={"metadata[tour]": "1"})
        for draft in self.double.objects("invoice"):
            if draft["status"] == "draft":
                await self.client.post(f"/v1/invoices/{draft['id']}/finalize")

    async def _first(self, collection: str) -> str:
        response = await self.client.get(collection, params=await self._needed(collection))
        found = response.json().get("data") or [{"id": "none"}]
        return str(found[0]["id"])

    async def _needed(self, path: str) -> dict[str, str]:
        subscription = self.double.objects("subscription")[0]
        needed = {
            "/v1/entitlements/active_entitlements": {"customer": subscription["customer"]},
            "/v1/subscription_items": {"subscription": subscription["id"]},
        }
        return needed.get(path, {})


async def tour() -> None:
    """Make the tour on a new double."""
    async with (
        StripeDouble(api_key=_API_KEY) as double,
        httpx.AsyncClient(base_url=double.url, auth=(_API_KEY, "")) as client,
    ):
        visitor = Tour(double, client)
        await visitor.make_objects()
        await visitor.visit()
