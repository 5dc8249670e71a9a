"""A stateful double of Stripe: one account in test mode behind a port of this machine.

Only the `stripe` library talks to it, over HTTP; tests and the embedded mode hold its switches:

    async with StripeDouble(api_key="sk_test_1", webhook_secrets=["whsec_1"]) as double:
        client = StripeClient("sk_test_1", base_addresses={"api": double.url}, http_client=HTTPXClient())
        double.webhooks.url = "http://127.0.0.1:8080/1/webhook/stripe"
        subscription = double.simulate.checkout(price, email="ada@example.com", trial_days=14)
        await double.clock.advance(timedelta(days=14, hours=1))
"""

from services.stripe_double.account import API_VERSION, Settings
from services.stripe_double.app import Call
from services.stripe_double.double import StripeDouble
from services.stripe_double.errors import StripeApiError
from services.stripe_double.faults import Fault, FaultKind
from services.stripe_double.signing import signature
from services.stripe_double.webhooks import Attempt, DeliveryFaults, RetryPolicy

__all__ = [
    "API_VERSION",
    "Attempt",
    "Call",
    "DeliveryFaults",
    "Fault",
    "FaultKind",
    "RetryPolicy",
    "Settings",
    "StripeApiError",
    "StripeDouble",
    "signature",
]
