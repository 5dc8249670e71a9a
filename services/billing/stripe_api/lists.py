"""Stripe's lists of all objects of a kind, with the parts that a comparison needs expanded, 100 objects a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from services.billing.stripe_api.parsing import Json

StripeList = Literal["customers", "subscriptions", "payments", "invoice_payments", "disputes", "products", "prices"]
SUBSCRIPTION_PARTS: Final = ("customer", "discounts", "latest_invoice", "schedule")
"""Expanded parts of a subscription."""
PRICE_PARTS: Final = ("currency_options", "tiers")
"""Expanded parts of a price; Stripe leaves them out otherwise."""
LISTS: Final[dict[StripeList, tuple[str, Json]]] = {
    "customers": ("/v1/customers", {"limit": 100}),
    # Without ``status`` Stripe leaves out ended subscriptions.
    "subscriptions": (
        "/v1/subscriptions",
        {"limit": 100, "status": "all", "expand": [f"data.{name}" for name in SUBSCRIPTION_PARTS]},
    ),
    "payments": ("/v1/payment_intents", {"limit": 100, "expand": ["data.customer", "data.latest_charge"]}),
    # An invoice payment has the payment intent and the invoice, neither of which names the other.
    "invoice_payments": (
        "/v1/invoice_payments",
        {
            "limit": 100,
            "expand": [
                "data.invoice",
                "data.payment.payment_intent.customer",
                "data.payment.payment_intent.latest_charge",
            ],
        },
    ),
    "disputes": ("/v1/disputes", {"limit": 100, "expand": ["data.charge"]}),
    # Without ``active`` both lists have the archived ones too.
    "products": ("/v1/products", {"limit": 100}),
    "prices": ("/v1/prices", {"limit": 100, "expand": [f"data.{name}" for name in PRICE_PARTS]}),
}


@dataclass(frozen=True, slots=True)
class Page:
    """A page of one of Stripe's lists, newest entries first; ``more`` is whether another page follows."""

    entries: list[Json]
    more: bool
