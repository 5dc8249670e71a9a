"""Settings of the billing service."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, EmailStr, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from shared.messages.billing.runs import Scheduled
from shared.settings import PRODUCTION, CommaSeparated, ServiceSettings, split_commas, without_credentials
from shared.variables import Unit


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a complete URL, https://…")
    return value


def _split_groups(value: Any) -> Any:
    return tuple(filter(None, map(split_commas, value.split(";")))) if isinstance(value, str) else value


def _split_notices(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = split_commas(value)
    pairs = {country.strip(): days.strip() for country, _, days in (each.partition(":") for each in parts)}
    if len(pairs) < len(parts):
        raise ValueError("names a country twice")
    return pairs


class BillingSettings(ServiceSettings):
    """Environment variables of the billing service."""

    PROCESS = "billing"
    SECTIONS: ClassVar = {
        "stripe_livemode": "Account",
        "stripe_grace_days": "Subscriptions",
        "stripe_events_retention_days": "Events and comparisons",
        "stripe_trial_price": "Trials and products",
        "stripe_portal_return_url": "Customer portal",
        "stripe_required_coupon": "Staging",
        "renewal_notices": "Mails",
    }

    stripe_livemode: bool
    """Whether this deployment handles real money; events and objects of the other mode are ignored."""
    stripe_api_key: SecretStr
    """A secret or restricted key of the account, of the same mode: ``sk_test_…``, ``rk_live_…``."""
    stripe_api_base: str | None = None
    """Base URL to call instead of Stripe's, of a test double. Rejected in production."""
    stripe_calls_per_second: Annotated[float, Unit("calls per second")] | None = Field(default=None, ge=5, le=10_000)
    """Rate limit of this process for calls to Stripe; by default 80, or 20 in test mode. Stripe allows an account 100,
    or 25 in test mode; several instances must share this (docs/operations.md#rate-limits-of-stripe)."""
    stripe_grace_days: int = Field(default=30, ge=0, le=365)
    """Grace period of an unpaid subscription, counted from its oldest open invoice. Stripe's own retries end within two
    months, and an account may be configured to leave a subscription ``past_due`` for ever."""
    stripe_unpaid_grace_days: int = Field(default=0, ge=0, le=365)
    """The same for a subscription for which nothing was ever paid: a trial that ended without a card, or a first bank
    debit that is returned. A trial that ended with a payment method has the grace period."""
    stripe_renewal_leeway_minutes: int = Field(default=120, ge=0, le=7 * 24 * 60)
    """How long a subscription that renews stays active past its period, while Stripe's event about it is on its way."""
    stripe_cancel_duplicates: bool | None = None
    """Whether a user's second live subscription for a product is cancelled; otherwise it is only announced and counted.
    By default it is cancelled, unless the account was imported (``nest stripe import``)."""
    stripe_exclusive_products: Annotated[tuple[tuple[str, ...], ...], NoDecode, BeforeValidator(_split_groups)] = ()
    """Products, ``prod_…``, of which a user may have one subscription at a time: groups separated by semicolons,
    products by commas. The prices of one product always exclude each other."""
    stripe_cancel_now: Literal["refused", "no_credit", "credit"] = "no_credit"
    """Whether ``cancel_subscription`` may end a subscription at once: ``refused``; ``no_credit``, the unused time is
    lost; ``credit``, its price is credited to the customer's balance and used up by the next invoices. Nothing is paid
    back (docs/stripe.md#orders-of-a-person)."""
    stripe_several_subscriptions: bool = False
    """Whether a user may have several subscriptions of one product: then ``create_checkout`` sells another one instead
    of leading to the change of the first, and none is cancelled as a duplicate (docs/stripe.md#checkouts)."""
    stripe_promotion_codes: bool = False
    """Whether the page of a checkout takes promotion codes."""
    stripe_automatic_tax: bool = False
    """Whether Stripe computes the tax of a checkout, from the address that the person enters; needs Stripe Tax."""
    trial_once_per_card: bool = True
    """Whether the trial of a checkout ends at once, and its first period is charged, if another person had a trial with
    the card."""
    stripe_downgrade: Literal["period_end", "now"] = "period_end"
    """When ``change_plan`` makes a change to a shorter interval, or to a lower amount for the same interval."""
    stripe_proration: Literal["always_invoice", "create_prorations", "none"] = "always_invoice"
    """How the rest of the period is charged after a change of plan: invoiced at once, with the next invoice, or not."""
    stripe_events_retention_days: int = Field(default=90, ge=31, le=3650)
    """Retention of handled events; longer than the 30 days for which Stripe keeps them."""
    stripe_sweep_minutes: int = Field(default=15, ge=0, le=7 * 24 * 60)
    """Interval at which events that Stripe could not deliver are fetched; 0 for never
    (docs/stripe.md#fetch-missed-events)."""
    stripe_verify_lately_hours: int = Field(default=1, ge=0, le=15 * 24)
    """Interval at which the objects of Stripe's recent events, of twice this interval, are compared with our records; 0
    for never (docs/stripe.md#compare-with-stripe)."""
    stripe_verify_hours: int = Field(default=168, ge=0, le=90 * 24)
    """Interval at which all records are compared with Stripe, since some changes cause no event; 0 for never."""
    stripe_trial_price: str = Field(min_length=3, max_length=255)
    """The price, ``price_…``, of a subscription after its trial."""
    trial_redemption_hours: float = Field(default=24, gt=0, le=14 * 24)
    """How long a trial that was ordered waits until its magic link is redeemed; then it is undone: the subscription is
    cancelled, and device and address may have a trial again (docs/stripe.md#trials)."""
    trial_unaliased: bool = True
    """Whether addresses that differ only in ``+tags``, or in dots at a provider that ignores them, are one person, who
    gets one trial (docs/stripe.md#trials)."""
    stripe_products: Annotated[CommaSeparated, BeforeValidator(split_commas)] = ()
    """The products, ``prod_…``, that Nest sells, in an account that also sells others; empty for all. Subscriptions,
    payments and disputes of other products are left alone (docs/stripe.md#other-products-and-accounts)."""
    stripe_portal_return_url: str
    """Page to which the customer portal leads back."""
    stripe_portal_in_status: bool = False
    """Whether every ``get_subscription_status`` creates a session of the customer portal in Stripe and returns its URL.
    By default the URL leads to the gateway, which has a session created when the link is opened."""
    stripe_required_coupon: str | None = Field(default=None, min_length=1, max_length=255)
    """A coupon without which a subscription, trials excepted, is cancelled at once: keeps strangers off a staging
    system. Rejected in production."""

    renewal_notices: Annotated[
        dict[Annotated[str, Field(pattern=r"^(\*|[A-Z]{2}(-[A-Z0-9]{1,3})?)$")], Annotated[int, Field(ge=1, le=90)]],
        NoDecode,
        Unit("days"),
        BeforeValidator(_split_notices),
    ] = Field(default_factory=dict, max_length=300)
    """Days before a renewal at which the person gets a mail about it, by the country of the customer's address: codes
    of ISO 3166-1, or of ISO 3166-2 for a part of a country, and ``*`` for all others. ``FR:45,US-CA:30,*:14``
    (docs/stripe.md#follow-stripes-events)."""
    renewal_notice_months: int = Field(default=12, ge=1, le=36)
    """Shortest period, in months, whose renewal is announced."""
    receipts: bool = False
    """Whether the person gets a mail about each payment of an invoice; Stripe can send receipts too."""
    operators_address: EmailStr | None = None
    """Recipient of mails about disputes. By default they are only counted and logged (docs/stripe.md#disputes)."""

    @property
    def calls_per_second(self) -> float:
        """``stripe_calls_per_second``, or the default of the mode (https://docs.stripe.com/rate-limits)."""
        return self.stripe_calls_per_second or (80.0 if self.stripe_livemode else 20.0)

    @property
    def periods(self) -> dict[Scheduled, timedelta]:
        """Interval of each kind of Stripe run that is scheduled."""
        periods: dict[Scheduled, timedelta] = {
            "sweep": timedelta(minutes=self.stripe_sweep_minutes),
            "verify_lately": timedelta(hours=self.stripe_verify_lately_hours),
            "verify": timedelta(hours=self.stripe_verify_hours),
        }
        return {kind: period for kind, period in periods.items() if period}

    _no_credentials = field_validator("stripe_api_base", "stripe_portal_return_url")(without_credentials)

    @field_validator("stripe_api_key")
    @classmethod
    def _matches_mode(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        kind, _, rest = value.get_secret_value().partition("_")
        mode = rest.partition("_")[0]
        if kind not in ("sk", "rk") or mode not in ("test", "live"):
            raise ValueError("must begin with sk_test_, sk_live_, rk_test_ or rk_live_")
        # Absent if NEST_STRIPE_LIVEMODE is invalid, which has its own error.
        if info.data.get("stripe_livemode") not in (mode == "live", None):
            raise ValueError(f"a {mode} key contradicts NEST_STRIPE_LIVEMODE")
        return value

    @field_validator("stripe_several_subscriptions")
    @classmethod
    def _cancels_none(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 -- pydantic's signature
        if value and info.data.get("stripe_cancel_duplicates"):
            raise ValueError("contradicts NEST_STRIPE_CANCEL_DUPLICATES=true")
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
