"""Checkout Sessions, and the customer portal's flow to change a subscription."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from services.billing.stripe_api.calls import RESOURCE_MISSING, Calls, StripeRefused
from services.billing.stripe_api.parsing import Json
from services.billing.stripe_api.payment_models import StripeCheckout
from services.billing.stripe_api.payment_parsing import parse_checkout

SESSIONS: Final = "/v1/checkout/sessions"
CHECKOUT_ID: Final = "checkout_id"
"""Metadata of a Checkout Session and of its subscription or payment: our ID of the checkout."""


class CheckoutSessions:
    """The calls to a Stripe account about Checkout Sessions."""

    calls: Calls

    async def create_checkout(self, params: Json, *, key: str) -> str:
        """Create a Checkout Session and return its ID.

        Raises:
            KeySpent: the idempotency key can no longer create one; look whether it exists.
            StripeRefused: Stripe rejected the request.
        """
        return str((await self.calls.post("create_checkout", SESSIONS, params, key=key))["id"])

    async def checkout(self, session_id: str) -> StripeCheckout | None:
        """A Checkout Session with the payment method of its subscription. Its URL is a bearer link."""
        path = f"{SESSIONS}/{quote(session_id, safe='')}"
        try:
            json = await self.calls.get("checkout", path, {"expand": ["subscription.default_payment_method"]})
        except StripeRefused as refused:
            if refused.code == RESOURCE_MISSING:
                return None
            raise
        return parse_checkout(json)

    async def open_checkouts(self, customer_id: str) -> dict[str, str]:
        """Our IDs of a customer's open Checkout Sessions that Nest made, by Stripe's."""
        params = {"customer": customer_id, "status": "open"}
        return {
            json["id"]: json["metadata"][CHECKOUT_ID]
            async for json in self.calls.pages("checkouts", SESSIONS, params)
            if CHECKOUT_ID in (json["metadata"] or {})
        }

    async def expire_checkout(self, session_id: str) -> None:
        """Close the page of an open Checkout Session; do nothing if it is not open any more."""
        try:
            await self.calls.post("expire_checkout", f"{SESSIONS}/{quote(session_id, safe='')}/expire", {})
        except StripeRefused as refused:
            # Stripe's only reason, for which it has no code: the session was paid, or has expired.
            if refused.code not in ("", RESOURCE_MISSING):
                raise

    async def portal_flow_url(self, customer_id: str, flow: Json | None, *, return_url: str) -> str:
        """The URL of a new session of a customer's portal that begins with a flow; as secret as ``portal_url``.

        https://docs.stripe.com/customer-management/portal-deep-links

        Raises:
            StripeRefused: the portal is not configured for the flow, or it can't change this subscription.
        """
        params: Json = {"customer": customer_id, "return_url": return_url}
        if flow is not None:
            completion = {"type": "redirect", "redirect": {"return_url": return_url}}
            params["flow_data"] = {**flow, "after_completion": completion}
        return str((await self.calls.post("portal_flow", "/v1/billing_portal/sessions", params))["url"])
