"""Checks of Stripe: API key and mode, trial price, webhook endpoint and event delivery."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlencode

from services.billing.events.handlers import NEEDED_EVENTS
from services.operator.doctor.findings import Finding, ok, problem, warning
from services.operator.doctor.http import OK, Response, clock_finding, get

BASE: Final = "https://api.stripe.com"
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
SUBSCRIPTION_EVENTS: Final = frozenset(
    f"customer.subscription.{name}" for name in ("created", "updated", "deleted", "paused", "resumed", "trial_will_end")
)
"""Without these, subscriptions are updated only by the next sweep."""
PAYMENT_EVENTS: Final = NEEDED_EVENTS - SUBSCRIPTION_EVENTS
"""Without these, checkouts, payments, refunds, disputes, plans and planned ends are updated only by the next sweep, and
a paused trial does not continue by itself. docs/stripe.md lists them too."""
DAY_SECONDS: Final = 24 * 60 * 60
PAGE: Final = 100
"""Stripe's largest page."""
WEBHOOK_PATH: Final = "/1/webhook/stripe"


async def check_stripe(settings: Any, issuer: str | None) -> AsyncIterator[Finding]:
    """Check the API key and its mode, the trial price, the webhook endpoint and the delivery of events.

    The issuer, if known, is the URL at which Stripe must reach the gateway.
    """
    price = await _get(settings, f"prices/{settings.stripe_trial_price}")
    yield _check_price(price, settings)
    if price.clock_offset is not None:
        yield clock_finding("Stripe's clock", price.clock_offset)
    if price.status == UNAUTHORIZED:
        return
    # Stripe sends events only to https. A forwarder to a developer's machine is not listed as an endpoint.
    if issuer is not None and issuer.startswith("https://"):
        endpoints = await _get(settings, "webhook_endpoints", limit=str(PAGE))
        yield _check_endpoints(endpoints, settings, issuer + WEBHOOK_PATH)
    yield _check_events(await _get(settings, "events", delivery_success="false", limit=str(PAGE)))


def _mode(settings: Any) -> str:
    return "live" if settings.stripe_livemode else "test"


def _check_price(price: Response, settings: Any) -> Finding:
    if price.status == UNAUTHORIZED:
        return problem("refuses the API key", "check NEST_STRIPE_API_KEY")
    if price.status == FORBIDDEN:
        return problem("the key may not read prices", "add the permission to the restricted key; see docs/stripe.md")
    if price.status != OK:
        code = price.body.get("error", {}).get("code") or price.status
        return problem(f"the trial price cannot be read ({code})", "check NEST_STRIPE_TRIAL_PRICE")
    if bool(price.body.get("livemode")) != settings.stripe_livemode:
        return problem("the key is of the other mode", "NEST_STRIPE_LIVEMODE and NEST_STRIPE_API_KEY must agree")
    if not price.body.get("active", True):
        return problem("the trial price is archived", "set NEST_STRIPE_TRIAL_PRICE to an active price")
    product = price.body.get("product")
    if settings.stripe_products and product not in settings.stripe_products:
        return problem(f"the trial price is of {product}, which is not Nest's", "add it to NEST_STRIPE_PRODUCTS")
    return ok(f"accepts the key ({_mode(settings)} mode)")


def _check_endpoints(response: Response, settings: Any, url: str) -> Finding:
    """Check that a webhook endpoint of this mode sends all events to us. A webhook secret does not show its mode."""
    mode = _mode(settings)
    if response.status != OK:
        return warning(
            f"the webhook endpoints cannot be read ({response.status})",
            f"allow the restricted key to read them, or check in Stripe's dashboard that one sends to {url} in {mode}"
            " mode",
        )
    endpoints = [
        each
        for each in response.body.get("data", [])
        if each.get("url") == url and bool(each.get("livemode")) == settings.stripe_livemode
    ]
    if not endpoints:
        # Stripe lists event destinations of thin events elsewhere; they suffice too.
        return warning(
            f"no webhook endpoint of the {mode} mode sends to {url}",
            f"unless an event destination sends thin events there, create one in Stripe's dashboard, in {mode} mode,"
            " and set NEST_STRIPE_WEBHOOK_SECRETS to its secret",
        )
    enabled = [each for each in endpoints if each.get("status") == "enabled"]
    if not enabled:
        return problem(
            f"the webhook endpoint {endpoints[0]['id']} is disabled", "enable it, then run nest stripe sweep"
        )
    sent = {event for each in enabled for event in each.get("enabled_events", ())}
    missing = [] if "*" in sent else sorted((SUBSCRIPTION_EVENTS | PAYMENT_EVENTS) - sent)
    if missing:
        finding = problem if SUBSCRIPTION_EVENTS.intersection(missing) else warning
        says = f"the webhook endpoint {enabled[0]['id']} does not send {', '.join(missing)}"
        return finding(says, "add them to the endpoint; until then sweeps and comparisons find these changes")
    return ok(f"the webhook endpoint {enabled[0]['id']} sends to {url}")


def _check_events(response: Response) -> Finding:
    """Check that the events of the last day were delivered. A wrong webhook secret shows only here."""
    if response.status != OK:
        return warning(
            f"the events cannot be read ({response.status})", "allow the restricted key to read events; sweeps need it"
        )
    since = time.time() - DAY_SECONDS
    count = sum(event["created"] >= since for event in response.body.get("data", []))
    if not count:
        return ok("delivered all events of the last day")
    more = " or more" if count == PAGE else ""
    return warning(
        f"could not deliver {count}{more} events of the last day",
        "if the number grows, set NEST_STRIPE_WEBHOOK_SECRETS to the secret of the endpoint of this mode",
        embedded=f"has not delivered {count}{more} events of the last day, as when Nest is stopped; it tries again",
    )


async def _get(settings: Any, path: str, **query: str) -> Response:
    base = settings.stripe_api_base or BASE
    parameters = f"?{urlencode(query)}" if query else ""
    key = settings.stripe_api_key.get_secret_value()
    return await get(f"{base}/v1/{path}{parameters}", headers={"authorization": f"Bearer {key}"})
