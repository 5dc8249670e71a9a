"""Does Stripe take our key in our mode, is the price for trials there, and do its events reach us?"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlencode

from services.operator.doctor.findings import Finding, ok, problem, warning
from services.operator.doctor.http import OK, Answer, asked, clock

AREA: Final = "stripe"
BASE: Final = "https://api.stripe.com"
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
SUBSCRIPTIONS: Final = frozenset(
    f"customer.subscription.{what}" for what in ("created", "updated", "deleted", "paused", "resumed", "trial_will_end")
)
"""Without these no subscription would be brought up to date before the next sweep."""
MONEY: Final = frozenset(
    {
        *(
            f"payment_intent.{what}"
            for what in ("created", "processing", "requires_action", "succeeded", "payment_failed", "canceled")
        ),
        "invoice.payment_action_required",
        "invoice_payment.paid",
        "charge.refunded",
        *(f"refund.{what}" for what in ("created", "updated", "failed")),
        *(f"charge.dispute.{what}" for what in ("created", "updated", "closed", "funds_withdrawn", "funds_reinstated")),
    }
)
"""Without these payments, refunds and disputes would not be; docs/stripe.md names them too."""
LATELY: Final = 24 * 60 * 60
"""Seconds."""
AT_MOST: Final = 100
"""Stripe lists no more at once."""
PATH: Final = "/1/webhook/stripe"


async def look_at_stripe(settings: Any, issuer: str | None) -> AsyncIterator[Finding]:
    """Whether Stripe takes the key, in the mode that the settings say, knows the price for trials, and reaches us.

    Args:
        settings: billing's.
        issuer: where the gateway is, as Stripe must reach it; None where that is not known.
    """
    price = await _get(settings, f"prices/{settings.stripe_trial_price}")
    yield _of_price(price, settings)
    if price.offset is not None:
        yield clock("Stripe's clock", price.offset)
    if price.status == UNAUTHORIZED:
        return
    # Stripe sends to https alone; what leads to a developer's machine is no endpoint of the account.
    if issuer is not None and issuer.startswith("https://"):
        yield _of_endpoints(await _get(settings, "webhook_endpoints", limit=str(AT_MOST)), settings, issuer + PATH)
    yield _of_events(await _get(settings, "events", delivery_success="false", limit=str(AT_MOST)))


def _of_price(price: Answer, settings: Any) -> Finding:
    if price.status == UNAUTHORIZED:
        return problem(AREA, "does not take the key", "check NEST_STRIPE_API_KEY")
    if price.status == FORBIDDEN:
        return problem(
            AREA, "the key may not read prices", "let the restricted key read them; docs/stripe.md lists all"
        )
    if price.status != OK:
        code = price.said.get("error", {}).get("code") or price.status
        return problem(AREA, f"the price for trials can't be read ({code})", "check NEST_STRIPE_TRIAL_PRICE")
    if bool(price.said.get("livemode")) != settings.stripe_livemode:
        return problem(AREA, "the key is of the other mode", "NEST_STRIPE_LIVEMODE and NEST_STRIPE_API_KEY must agree")
    if not price.said.get("active", True):
        return problem(AREA, "the price for trials is archived", "set NEST_STRIPE_TRIAL_PRICE to one that is not")
    return ok(AREA, f"takes the key ({'live' if settings.stripe_livemode else 'test'} mode)")


def _of_endpoints(answer: Answer, settings: Any, url: str) -> Finding:
    """Whether an endpoint of this mode leads to us. A secret says nothing of its mode, but its endpoint does."""
    mode = "live" if settings.stripe_livemode else "test"
    if answer.status != OK:
        return warning(
            AREA,
            f"the webhook endpoints can't be looked at ({answer.status})",
            f"let the restricted key read them, or see in Stripe's dashboard that one leads to {url} in {mode} mode",
        )
    ours = [each for each in answer.said.get("data", []) if each.get("url") == url]
    of_mode = [each for each in ours if bool(each.get("livemode")) == settings.stripe_livemode]
    if not of_mode:
        # Destinations of thin events are listed elsewhere, and do as well.
        return warning(
            AREA,
            f"no webhook endpoint of the {mode} mode leads to {url}",
            f"unless an event destination sends thin events there, make one in Stripe's dashboard, in {mode} mode, and"
            " give its secret as NEST_STRIPE_WEBHOOK_SECRETS",
        )
    enabled = [each for each in of_mode if each.get("status") == "enabled"]
    if not enabled:
        return problem(
            AREA, f"the webhook endpoint {of_mode[0]['id']} is disabled", "enable it, then nest stripe sweep"
        )
    sent = {kind for each in enabled for kind in each.get("enabled_events", ())}
    lacking = [] if "*" in sent else sorted((SUBSCRIPTIONS | MONEY) - sent)
    if lacking:
        tell = problem if SUBSCRIPTIONS.intersection(lacking) else warning
        says = f"the webhook endpoint {enabled[0]['id']} does not send {', '.join(lacking)}"
        return tell(AREA, says, "let it send them; until then sweeps and comparisons find what they would have told")
    return ok(AREA, f"the webhook endpoint {enabled[0]['id']} leads to {url}")


def _of_events(answer: Answer) -> Finding:
    """Whether what happened of late was delivered: a wrong secret shows in nothing else."""
    if answer.status != OK:
        return warning(
            AREA,
            f"the events can't be looked at ({answer.status})",
            "let the restricted key read events; sweeps need it",
        )
    # The newest first; older ones were looked at on their day.
    since = time.time() - LATELY
    count = sum(event["created"] >= since for event in answer.said.get("data", []))
    if not count:
        return ok(AREA, "has delivered all events of the last day")
    more = " or more" if count == AT_MOST else ""
    return warning(
        AREA,
        f"could not deliver {count}{more} events of the last day",
        "if that grows: the secret in NEST_STRIPE_WEBHOOK_SECRETS must be that of the endpoint, of the same mode",
    )


async def _get(settings: Any, path: str, **query: str) -> Answer:
    base = settings.stripe_api_base or BASE
    asking = f"?{urlencode(query)}" if query else ""
    key = settings.stripe_api_key.get_secret_value()
    return await asked(f"{base}/v1/{path}{asking}", headers={"authorization": f"Bearer {key}"})
