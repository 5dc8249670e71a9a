"""Stripe double: a stateful stand-in for one Stripe account in test mode, for development and tests.

    async with StripeDouble(api_key="sk_test_1", webhook_secrets=["whsec_1"]) as double:
        client = StripeClient("sk_test_1", base_addresses={"api": double.url}, http_client=HTTPXClient())
        double.webhooks.url = "http://127.0.0.1:8080/1/webhook/stripe"
        subscription = double.simulate.checkout(price, email="ada@example.com", trial_days=14)
        await double.clock.advance(timedelta(days=14, hours=1))

`python -m services.stripe_double` starts it as a program; the README of this folder describes both.
"""

from services.stripe_double.account import API_VERSION, Settings
from services.stripe_double.api import LoggedRequest
from services.stripe_double.errors import StripeApiError
from services.stripe_double.faults import DeliveryFaults, Fault, FaultKind
from services.stripe_double.server import StripeDouble
from services.stripe_double.webhooks import DeliveryAttempt, RetryPolicy, signature

__all__ = [
    "API_VERSION",
    "DeliveryAttempt",
    "DeliveryFaults",
    "Fault",
    "FaultKind",
    "LoggedRequest",
    "RetryPolicy",
    "Settings",
    "StripeApiError",
    "StripeDouble",
    "signature",
]
