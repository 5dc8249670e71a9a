"""A stateful double of Stripe: one account in test mode behind a port of this machine.

Only the `stripe` library talks to it, over HTTP; tests and the embedded mode hold its switches:

    async with StripeDouble(api_key="sk_test_1", webhook_secrets=["whsec_1"]) as double:
        client = StripeClient("sk_test_1", base_addresses={"api": double.url}, http_client=HTTPXClient())
        double.webhooks.url = "http://127.0.0.1:8080/1/webhook/stripe"
        subscription = double.play.checkout(price, email="ada@example.com", trial_days=14)
        await double.clock.advance(timedelta(days=14, hours=1))
"""

from services.embedded.stripe.account import API_VERSION, Settings
from services.embedded.stripe.app import Call
from services.embedded.stripe.disorder import Disorder, Retries
from services.embedded.stripe.double import StripeDouble
from services.embedded.stripe.errors import StripeRefusal
from services.embedded.stripe.faults import Fault, Trouble
from services.embedded.stripe.signing import signature
from services.embedded.stripe.webhooks import Attempt

__all__ = [
    "API_VERSION",
    "Attempt",
    "Call",
    "Disorder",
    "Fault",
    "Retries",
    "Settings",
    "StripeDouble",
    "StripeRefusal",
    "Trouble",
    "signature",
]
