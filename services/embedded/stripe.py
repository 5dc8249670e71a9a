"""Which Stripe the embedded mode uses: the double on this machine, or a real test account.

Without `NEST_STRIPE_API_KEY` it is the double. With a test key it is the account of the key, whose events `stripe
listen` forwards (docs.stripe.com/cli/listen). Live keys are refused: a trial run must not charge anybody.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from pydantic import SecretStr

from services.embedded import ports
from services.embedded.demo import trial_price
from services.embedded.errors import CannotStart
from services.stripe_double import StripeDouble
from shared.settings import load
from shared.variables import VariableSettings

if TYPE_CHECKING:
    from services.embedded.credentials import GeneratedSecrets

STRIPE: Final = "https://api.stripe.com"
WEBHOOK_PATH: Final = "/1/webhook/stripe"
_TEST_KEYS: Final = ("sk_test_", "rk_test_")
_LIVE_KEYS: Final = ("sk_live_", "rk_live_")
_DOUBLE_FILE: Final = "stripe.sqlite"
_REAL_FILE: Final = "stripe-account"
_OTHER_FOLDER: Final = "choose another folder with --data, because customers of one are unknown to the other"


class GivenStripe(VariableSettings):
    """Settings of the billing service and the gateway that choose the account."""

    stripe_api_key: SecretStr | None = None
    stripe_webhook_secrets: SecretStr | None = None
    stripe_api_base: str | None = None
    stripe_livemode: str = "false"
    stripe_trial_price: str | None = None


@dataclass(frozen=True)
class StripeUse:
    """The Stripe that Nest uses."""

    environment: dict[str, str] = field(repr=False)
    """Variables of the services; variables of the environment take precedence."""
    webhook_url: str
    """Where events are received."""
    double: StripeDouble | None
    """None for a real account."""
    key: str = ""
    """Beginning of the key of a real account, to recognize it by."""

    def deliver_events(self) -> None:
        """Let the double deliver events, once the gateway listens; until then they wait."""
        if self.double is not None:
            self.double.webhooks.url = self.webhook_url

    @property
    def text(self) -> str:
        """A phrase for the greeting."""
        return f"your test account ({self.key}…)" if self.double is None else "a double on this machine"


def check_given() -> GivenStripe:
    """Return the settings in the environment.

    Raises:
        CannotStart: they name a live account, or lack the secret of its events.
        SettingsError: a variable is invalid.
    """
    given = load(GivenStripe)
    if given.stripe_api_key is None:
        return given
    key = given.stripe_api_key.get_secret_value()
    if key.startswith(_LIVE_KEYS):
        raise CannotStart(
            f"NEST_STRIPE_API_KEY is a live key ({key[:8]}…), and nest up must not charge anybody:"
            " set a test key (sk_test_…, rk_test_…), or unset it for the Stripe double"
        )
    if not key.startswith(_TEST_KEYS):
        raise CannotStart("NEST_STRIPE_API_KEY must begin with sk_test_ or rk_test_; unset it for the Stripe double")
    if given.stripe_livemode.strip().lower() not in {"false", "0", "off", "no", "f", "n"}:
        raise CannotStart("NEST_STRIPE_LIVEMODE must be false, or unset, for nest up: it takes test keys only")
    if given.stripe_webhook_secrets is None or not given.stripe_webhook_secrets.get_secret_value():
        raise CannotStart(
            "NEST_STRIPE_WEBHOOK_SECRETS is missing: set it to what `stripe listen --print-secret` prints,"
            " so that Nest accepts the events of your account"
        )
    return given


@asynccontextmanager
async def open_stripe(folder: Path, secrets: GeneratedSecrets, base_url: str) -> AsyncIterator[StripeUse]:
    """Start the double, or check the real account, while the context is entered.

    Args:
        folder: the data folder.
        secrets: key and webhook secret of the double.
        base_url: URL of the gateway.

    Raises:
        CannotStart: the settings are refused, the account can't be used, or the folder has data of the other one.
    """
    given = check_given()
    webhook_url = base_url + WEBHOOK_PATH
    if given.stripe_api_key is not None:
        yield await _real(folder, given, webhook_url)
        return
    if (folder / _REAL_FILE).exists():
        raise CannotStart(f"{folder} has data of a real Stripe account, not of the double: {_OTHER_FOLDER}")
    signing = (
        given.stripe_webhook_secrets.get_secret_value() if given.stripe_webhook_secrets else secrets.webhook_secret
    )
    double = StripeDouble(
        api_key=secrets.stripe_api_key,
        webhook_secrets=[each.strip() for each in signing.split(",")],
        folder=folder,
        # Links to pages of the double are in mails and in the browser's history.
        port=ports.stored(folder / "stripe.port"),
    )
    async with double:
        environment = {
            "NEST_STRIPE_API_KEY": secrets.stripe_api_key,
            "NEST_STRIPE_API_BASE": double.url,
            "NEST_STRIPE_WEBHOOK_SECRETS": signing,
            "NEST_STRIPE_TRIAL_PRICE": given.stripe_trial_price
            or await trial_price(secrets.stripe_api_key, double.url),
        }
        yield StripeUse(environment, webhook_url, double)


async def _real(folder: Path, given: GivenStripe, webhook_url: str) -> StripeUse:
    """Check the account and find the price of trials.

    Raises:
        CannotStart: Stripe refuses the key or is unreachable, or the folder has data of the double.
    """
    if (folder / _DOUBLE_FILE).exists():
        raise CannotStart(f"{folder} has data of the Stripe double, not of your account: {_OTHER_FOLDER}")
    key = given.stripe_api_key.get_secret_value() if given.stripe_api_key else ""
    base = (given.stripe_api_base or STRIPE).rstrip("/")
    try:
        price = given.stripe_trial_price or await trial_price(key, base)
    except httpx.HTTPStatusError as refused:
        status = refused.response.status_code
        remedy = (
            "check the key"
            if status == httpx.codes.UNAUTHORIZED
            else "set NEST_STRIPE_TRIAL_PRICE to a monthly price of the account, so that none is created"
        )
        raise CannotStart(f"Stripe refuses NEST_STRIPE_API_KEY ({status}): {remedy}") from None
    except httpx.HTTPError as unreachable:
        raise CannotStart(
            f"Stripe can't be reached at {base} ({type(unreachable).__name__}): check the network,"
            " or unset NEST_STRIPE_API_KEY for the Stripe double"
        ) from None
    (folder / _REAL_FILE).write_text("This folder has data of a real Stripe account in test mode.\n")
    secret = given.stripe_webhook_secrets.get_secret_value() if given.stripe_webhook_secrets else ""
    environment = {
        "NEST_STRIPE_API_KEY": key,
        "NEST_STRIPE_WEBHOOK_SECRETS": secret,
        "NEST_STRIPE_TRIAL_PRICE": price,
        # Stripe allows 25 in test mode (docs.stripe.com/rate-limits).
        "NEST_STRIPE_CALLS_PER_SECOND": "20",
    }
    if given.stripe_api_base:
        environment["NEST_STRIPE_API_BASE"] = given.stripe_api_base
    return StripeUse(environment, webhook_url, None, key[:12])
