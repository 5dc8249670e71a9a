"""Rights that a restricted API key needs, by resource as Stripe's Dashboard names them.

``nest stripe setup`` checks them by a harmless call for each. To read is checked by a list of one object. To write is
checked by a change of an object that does not exist, which Stripe refuses with ``resource_missing`` if the key has the
right, and with 403 if it has not (https://docs.stripe.com/keys#create-restricted-api-secret-key).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Access = Literal["read", "write"]
MISSING: Final = "nest_setup_check"
"""An ID that no object has."""


@dataclass(frozen=True, slots=True)
class Right:
    """A right of a restricted key; to write includes to read.

    Attributes:
        resource: name of the resource in the Dashboard.
        access: what Nest does with it.
        path: of the harmless call, a GET to read and a POST to write.
        purpose: what Nest cannot do without it.
        params: of the call.
    """

    resource: str
    access: Access
    path: str
    purpose: str
    params: tuple[tuple[str, str], ...] = ()


RIGHTS: Final = (
    Right("Customers", "write", f"/v1/customers/{MISSING}", "trials, checkouts, erasures, credits of duplicates"),
    Right("Subscriptions", "write", f"/v1/subscriptions/{MISSING}", "trials, cancellations, plan changes"),
    Right(
        "Subscription schedules",
        "write",
        f"/v1/subscription_schedules/{MISSING}/release",
        "cancellations, plan changes",
    ),
    Right("Checkout Sessions", "write", f"/v1/checkout/sessions/{MISSING}/expire", "create_checkout"),
    Right("Customer portal", "write", f"/v1/billing_portal/configurations/{MISSING}", "links to the portal"),
    Right("Charges and Refunds", "write", f"/v1/refunds/{MISSING}", "refunds of duplicates"),
    Right("PaymentIntents", "read", "/v1/payment_intents", "payments"),
    Right(
        "PaymentMethods", "read", "/v1/payment_methods", "create_checkout: one trial for each card, and expiring cards"
    ),
    Right("Disputes", "read", "/v1/disputes", "disputes"),
    Right("Invoices", "read", "/v1/invoices", "payments, list_invoices, preview_plan_change"),
    Right("Credit notes", "read", "/v1/credit_notes", "list_billing_history"),
    Right("Events", "read", "/v1/events", "sweeps and comparisons"),
    Right("Products", "read", "/v1/products", "list_plans"),
    Right("Prices", "read", "/v1/prices", "list_plans"),
    Right("Entitlements", "read", "/v1/entitlements/features", "features of plans"),
    Right("Meter events", "write", "/v1/billing/meter_events", "report_usage", (("event_name", MISSING),)),
    Right("Webhook Endpoints", "read", "/v1/webhook_endpoints", "nest doctor and nest stripe setup"),
)
SETUP_RIGHTS: Final = (
    Right("Webhook Endpoints", "write", f"/v1/webhook_endpoints/{MISSING}", "nest stripe setup --apply"),
    Right("Products", "write", f"/v1/products/{MISSING}", "nest stripe setup --apply"),
    Right("Prices", "write", f"/v1/prices/{MISSING}", "nest stripe setup --apply"),
    Right("Entitlements", "write", f"/v1/entitlements/features/{MISSING}", "nest stripe setup --apply"),
)
"""Rights of a key that applies a setup, which may be another key than that of billing."""
