"""Do Stripe and Twilio take our keys, and is the price for trials there? Only what is configured is asked."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from services.operator.doctor_findings import Finding, ok, problem
from services.operator.doctor_mongo import clock

STRIPE: Final = "https://api.stripe.com"
TWILIO: Final = "https://api.twilio.com"
SECONDS: Final = 10.0


async def look_at_stripe(settings: Any) -> AsyncIterator[Finding]:
    """Whether Stripe takes the key, in the mode that the settings say, and knows the price for trials.

    Args:
        settings: billing's.
    """
    base = settings.stripe_api_base or STRIPE
    headers = {"authorization": f"Bearer {settings.stripe_api_key.get_secret_value()}"}
    url = f"{base}/v1/prices/{settings.stripe_trial_price}"
    status, said, date = await _get(url, headers=headers)
    if status == 401:  # noqa: PLR2004 -- Unauthorized
        yield problem("stripe", "does not take the key", "check NEST_STRIPE_API_KEY")
    elif status == 403:  # noqa: PLR2004 -- Forbidden
        yield problem(
            "stripe", "the key may not read prices", "let the restricted key read them; docs/stripe.md lists all"
        )
    elif status != 200:  # noqa: PLR2004 -- OK
        code = said.get("error", {}).get("code") or status
        yield problem("stripe", f"the price for trials can't be read ({code})", "check NEST_STRIPE_TRIAL_PRICE")
    elif bool(said.get("livemode")) != settings.stripe_livemode:
        yield problem(
            "stripe", "the key is of the other mode", "NEST_STRIPE_LIVEMODE and NEST_STRIPE_API_KEY must agree"
        )
    elif not said.get("active", True):
        yield problem("stripe", "the price for trials is archived", "set NEST_STRIPE_TRIAL_PRICE to one that is not")
    else:
        yield ok("stripe", f"takes the key ({'live' if settings.stripe_livemode else 'test'} mode)")
    if date is not None:
        # In whole seconds, and made before it came.
        offset = date - time.time()
        yield clock("Stripe's clock", 0.0 if abs(offset) < 2.0 else offset)  # noqa: PLR2004


async def look_at_twilio(settings: Any) -> AsyncIterator[Finding]:
    """Whether Twilio takes the account.

    Args:
        settings: the mailer's, with Twilio as the provider of texts.
    """
    sid, token = settings.twilio_account_sid, settings.twilio_auth_token.get_secret_value()
    base = settings.twilio_api_base or TWILIO
    auth = aiohttp.BasicAuth(sid, token)
    status, said, _ = await _get(f"{base}/2010-04-01/Accounts/{sid}.json", auth=auth)
    if status == 200 and said.get("status", "active") == "active":  # noqa: PLR2004 -- OK
        yield ok("twilio", "takes the account")
    elif status == 200:  # noqa: PLR2004 -- OK
        yield problem("twilio", f"the account is {said['status']}", "see Twilio's console")
    else:
        yield problem(
            "twilio", f"does not take the account ({status})", "check NEST_TWILIO_ACCOUNT_SID and _AUTH_TOKEN"
        )


async def _get(url: str, **how: Any) -> tuple[int, dict[str, Any], float | None]:
    """Status, JSON and the server's time of an answer."""
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, **how) as answer:
        told = answer.headers.get("date")
        try:
            said = await answer.json(content_type=None)
        except ValueError:
            said = {}
        date = None if told is None else parsedate_to_datetime(told).timestamp()
        return answer.status, said if isinstance(said, dict) else {}, date
