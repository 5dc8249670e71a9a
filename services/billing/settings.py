"""What must the billing service be told before it starts?"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

from pydantic import EmailStr, Field, SecretStr, ValidationInfo, field_validator

from shared.messages.billing.runs import Scheduled
from shared.settings import PRODUCTION, ServiceSettings


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write a whole URL, https://… ")
    return value


class BillingSettings(ServiceSettings):
    """The billing service's environment variables."""

    stripe_livemode: bool
    """Whether this deployment is about real money; what comes from the other mode is refused."""
    stripe_api_key: SecretStr
    """A secret or restricted key of the account, of the same mode: ``sk_test_…``, ``rk_live_…``."""
    stripe_api_base: str | None = None
    """Where to call instead of Stripe itself: a test double. Refused in production."""
    stripe_calls_per_second: float | None = Field(default=None, ge=5, le=10_000)
    """How many calls this process may make; 80 by default, 20 in test mode: Stripe takes 100 and 25 of an account.
    Several instances share what Stripe allows, so each is given its part."""
    stripe_grace_days: int = Field(default=30, ge=0, le=365)
    """How long a subscription counts although it was not paid, counted from its oldest open invoice. Stripe's own tries
    end within two months, and an account may be set to leave it ``past_due`` for ever."""
    stripe_cancel_duplicates: bool = True
    """Whether a user's second live subscription is cancelled; otherwise it is announced and counted, and nothing is
    done about it."""
    stripe_events_retention_days: int = Field(default=90, ge=31, le=3650)
    """How long an event is kept once it is handled; longer than the 30 days in which Stripe can still tell of it."""
    stripe_sweep_minutes: int = Field(default=15, ge=0, le=7 * 24 * 60)
    """How often the events are fetched that Stripe could not deliver; 0 for never."""
    stripe_verify_lately_hours: int = Field(default=1, ge=0, le=15 * 24)
    """How often what Stripe told of lately, twice as far back, is compared with our records; 0 for never."""
    stripe_verify_hours: int = Field(default=168, ge=0, le=90 * 24)
    """How often everything is compared with our records: Stripe may make no event at all of a change; 0 for never."""
    stripe_trial_price: str = Field(min_length=3, max_length=255)
    """The price, ``price_…``, that a trial goes over into."""
    stripe_portal_return_url: str
    """Where the customer portal leads back to."""
    stripe_required_coupon: str | None = Field(default=None, min_length=1, max_length=255)
    """A coupon without which a subscription, trials excepted, is cancelled at once: keeps strangers off a staging
    system. Refused in production."""

    operators_address: EmailStr | None = None
    """Who is written to about disputes."""

    @property
    def calls_per_second(self) -> float:
        """``stripe_calls_per_second``, or what the mode allows (https://docs.stripe.com/rate-limits)."""
        return self.stripe_calls_per_second or (80.0 if self.stripe_livemode else 20.0)

    @property
    def periods(self) -> dict[Scheduled, timedelta]:
        """How often the clock begins each kind of run over Stripe, for those that it begins."""
        found: dict[Scheduled, timedelta] = {
            "sweep": timedelta(minutes=self.stripe_sweep_minutes),
            "verify_lately": timedelta(hours=self.stripe_verify_lately_hours),
            "verify": timedelta(hours=self.stripe_verify_hours),
        }
        return {kind: period for kind, period in found.items() if period}

    @field_validator("stripe_api_key")
    @classmethod
    def _of_this_mode(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        kind, _, rest = value.get_secret_value().partition("_")
        mode = rest.partition("_")[0]
        if kind not in ("sk", "rk") or mode not in ("test", "live"):
            raise ValueError("a secret key begins with sk_test_, sk_live_, rk_test_ or rk_live_")
        # Absent when NEST_STRIPE_LIVEMODE itself is wrong; that is said then.
        if info.data.get("stripe_livemode") not in (mode == "live", None):
            raise ValueError(f"a {mode} key, and NEST_STRIPE_LIVEMODE says otherwise")
        return value

    @field_validator("stripe_api_base", "stripe_required_coupon")
    @classmethod
    def _not_in_production(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("environment") == PRODUCTION:
            raise ValueError("must not be set in production")
        return value

    @field_validator("stripe_api_base")
    @classmethod
    def _base(cls, value: str | None) -> str | None:
        return None if value is None else _url(value).rstrip("/")

    @field_validator("stripe_portal_return_url")
    @classmethod
    def _return_url(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("environment") == PRODUCTION and not value.startswith("https://"):
            raise ValueError("must be https in production")
        return _url(value)
