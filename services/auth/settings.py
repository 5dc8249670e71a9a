"""Environment variables of auth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, get_args
from urllib.parse import urlsplit

from argon2 import Parameters
from argon2.profiles import RFC_9106_LOW_MEMORY
from pydantic import BeforeValidator, Field, FilePath, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.auth.rate_limits.models import LIMIT_NAMES, MAX_LOGGED_USES, Limit, LimitName, PersonLimitName
from services.auth.sessions.geoip import GeoIp
from services.auth.signing_keys.models import RotationPolicy
from services.auth.tokens.models import AccessTokenType
from shared.messages.auth.signing_keys import JWKS_SECONDS, Algorithm
from shared.phone_numbers import COUNTRIES
from shared.settings import (
    PRODUCTION,
    CommaSeparated,
    OldClientsSettings,
    ServiceSettings,
    refuse_in_production,
    split_commas,
    without_credentials,
)
from shared.variables import Unit

DEVELOPMENT_ISSUER: Final = "http://127.0.0.1:8080"
"""URL of the gateway in the embedded mode."""
ALL_COUNTRIES: Final = "all"
_KIB: Final = 1024


def _setting(limit: LimitName) -> str:
    return f"limit_{limit.replace('-', '_')}"


def _parsed(value: object) -> object:
    return Limit.parse(value) if isinstance(value, str) else value


LimitSetting = Annotated[Limit, NoDecode, BeforeValidator(_parsed)]
"""Rules that apply together, separated by commas, such as ``1/1m, 5/1h, 10/1d``; or ``none``."""


class AuthSettings(ServiceSettings, OldClientsSettings):
    """The environment variables of auth."""

    PROCESS = "auth"
    SECTIONS: ClassVar = {
        "issuer": "Tokens and signing keys",
        "authorization_minutes": "Logins",
        "audit_days": "Retention",
        "limit_magic_links_per_address": "Rate limits",
        "password_memory": "Passwords",
    }

    issuer: str = Field(default="", validate_default=True)
    """URL under which clients reach the gateway, without a slash at the end: claim ``iss`` of every access token
    (RFC 8414 section 2). Required in production, with https."""
    signing_algorithm: Algorithm = "ES256"
    """Algorithm of signatures. A change takes effect with the next key, which a start publishes at once
    (docs/operations.md#signing-keys)."""
    access_token_type: AccessTokenType = "JWT"  # noqa: S105 -- the header ``typ``
    """Header ``typ`` of access tokens. ``at+jwt`` is that of RFC 9068, whose claim ``client_id`` they then have too
    (docs/http-api.md#verify-access-tokens-elsewhere)."""
    signing_key_days: int = Field(default=90, ge=1, le=3650)
    """How long a key signs before the next one takes over."""
    signing_key_lead_seconds: int = Field(default=900, ge=1, le=86_400)
    """How long a key is published before it signs; must be longer than verifiers cache the public keys."""

    authorization_minutes: int = Field(default=10, ge=1, le=20)
    """How long a magic link can be redeemed."""
    typed_code_minutes: int = Field(default=10, ge=1, le=10)
    """How long the digits in a mail with a magic link can be typed; never longer than the link works."""
    phone_code_minutes: int = Field(default=10, ge=1, le=10)
    """How long a texted code can be redeemed."""
    text_countries: CommaSeparated = ()
    """Countries whose phone numbers are texted, as ISO 3166-1 codes (``CH,DE``), or ``all``. Empty by default, since
    each text costs money. All in the embedded mode (docs/operations.md#texts)."""
    test_login: bool = False
    """Whether ``POST /login`` logs any user in without a code, for tests. Refused in production."""
    places_database: FilePath | None = None
    """GeoIP database in MaxMind's format (GeoLite2 City or Country, or compatible), for the list of a user's sessions.
    Read at the start. Without one, locations are not shown (docs/http-api.md#sessions)."""

    user_search: Literal["exact", "part"] = "exact"
    """Search of operators in the list of users: for a whole address or number only, or for a part of one too
    (docs/operations.md#personal-data)."""
    audit_days: int = Field(default=180, ge=1, le=3650)
    """Retention of audit entries. A change takes effect at the next start, for old entries too
    (docs/operations.md#audit)."""
    user_export_days: int = Field(default=7, ge=1, le=30)
    """How long the document of an export can be read, counted from the end of the export
    (docs/operations.md#personal-data)."""

    limit_magic_links_per_address: LimitSetting = Limit.parse("1/1m, 5/1h, 10/1d")
    """Magic links to one address, and links of accounts with passwords to one address, in counts of their own
    (docs/operations.md#rate-limits)."""
    limit_magic_links_per_prefix: LimitSetting = Limit.parse("30/5m")
    """Magic links and links of accounts requested from one IP prefix (/24 of IPv4, /64 of IPv6)."""
    limit_magic_links_per_client: LimitSetting = Limit.parse("1000/1m, 20000/1h")
    """Magic links requested by one app, and links of accounts by one application."""
    limit_trials_per_address: LimitSetting = Limit.parse("5/10m, 10/1d")
    """Trials requested for one address. Separate from magic links, so that a request that failed in an outage of Stripe
    can be repeated at once; each trial mails its link once."""
    limit_trials_per_prefix: LimitSetting = Limit.parse("10/1h, 30/1d")
    """Trials requested from one IP prefix. Each creates a customer and a subscription in Stripe."""
    limit_trials_per_deployment: LimitSetting = Limit.parse("2000/1d")
    """Trials requested from all networks together; above all a bound on the objects that strangers create in Stripe."""
    limit_guesses_per_identifier: LimitSetting = Limit.parse("10/1h")
    """Wrong guesses at the codes of one address or number, whatever the number of codes."""
    limit_typed_codes_per_address: LimitSetting = Limit.parse("10/1h")
    """Wrong typed codes of one address, whatever the number of codes. A known device has a count of its own, and the
    first guess at each code is allowed regardless (docs/http-api.md#typed-codes)."""
    limit_wrong_keys_per_prefix: LimitSetting = Limit.parse("60/5m")
    """Unknown codes and refresh tokens from one IP prefix; valid ones are accepted regardless."""
    limit_texts_per_number: LimitSetting = Limit.parse("3/10m, 10/1d")
    """Texts to one number."""
    limit_texts_per_prefix: LimitSetting = Limit.parse("20/1h")
    """Texts requested from one IP prefix."""
    limit_texts_per_country: LimitSetting = Limit.parse("500/1h")
    """Texts to the numbers of one country (ISO 3166-1), of the whole deployment (docs/operations.md#texts)."""
    limit_texts_per_deployment: LimitSetting = Limit.parse("1000/1h")
    """Texts to all numbers, of the whole deployment: an upper bound of their cost."""
    limit_passwords_per_user: LimitSetting = Limit.parse("10/15m")
    """Wrong passwords for one user."""
    limit_passwords_per_prefix: LimitSetting = Limit.parse("30/5m")
    """Calls from one IP prefix that hash a password, except to accounts that were logged in to from there before
    (docs/operations.md#passwords)."""
    limit_refusals_per_prefix: LimitSetting = Limit.parse("100/5m")
    """Refused anonymous commands from one IP prefix that are stored and audited one by one. Further ones get
    ``throttled``; commands that are not refused are handled regardless (docs/operations.md#refused-calls)."""
    guesses_per_code: Annotated[int, Unit("guesses")] = Field(default=5, ge=1, le=10)
    """Number of wrong guesses that void a code."""
    limit_lift_loopback: bool = False
    """Whether limits per IP prefix ignore callers on this machine. Refused in production, where behind an undeclared
    proxy every caller seems to be on this machine. On in the embedded mode."""

    password_memory: Annotated[int, Unit("MiB")] = Field(default=RFC_9106_LOW_MEMORY.memory_cost // _KIB, ge=1, le=4096)
    """MiB of memory per password hash; at least 64 in production (RFC 9106 section 4). After a change, a password is
    rehashed at its next login (docs/operations.md#passwords)."""
    password_passes: Annotated[int, Unit("passes")] = Field(default=RFC_9106_LOW_MEMORY.time_cost, ge=1, le=64)
    """Passes over the memory per password hash; at least 3 in production. After a change, a password is rehashed at its
    next login."""
    password_threads: Annotated[int, Unit("threads")] = Field(default=2, ge=1, le=64)
    """Concurrent password hashes of a process; each takes the memory above and up to four cores."""
    password_wait_seconds: float = Field(default=5.0, gt=0, le=60)
    """A call whose password would wait longer for a thread is refused; must be less than ``NEST_REPLY_SECONDS``, after
    which the gateway no longer waits."""

    _no_credentials = field_validator("issuer")(without_credentials)
    _only_for_tests = field_validator("test_login", "limit_lift_loopback")(refuse_in_production)
    _split_countries = field_validator("text_countries", mode="before")(split_commas)

    @field_validator("issuer")
    @classmethod
    def _is_url(cls, value: str, info: ValidationInfo) -> str:
        production = info.data.get("environment") == PRODUCTION
        if not value and not production:
            return DEVELOPMENT_ISSUER
        if not value:
            raise ValueError("is not set, but is required in production")
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("write a whole URL, https://…")
        if production and parts.scheme != "https":
            raise ValueError("must be https in production")
        return value.rstrip("/")

    @field_validator("signing_key_lead_seconds")
    @classmethod
    def _exceeds_caches(cls, value: int, info: ValidationInfo) -> int:
        if value <= JWKS_SECONDS and info.data.get("environment", PRODUCTION) == PRODUCTION:
            raise ValueError(f"must be more than {JWKS_SECONDS} in production: others cache the public keys that long")
        return value

    @field_validator("text_countries")
    @classmethod
    def _are_countries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted({country for country in value if country not in COUNTRIES})
        if unknown and value != (ALL_COUNTRIES,):
            raise ValueError(f"write CH,DE or all; these are no countries with phone numbers: {', '.join(unknown)}")
        return value

    @field_validator("places_database")
    @classmethod
    def _is_readable(cls, value: Path | None) -> Path | None:
        GeoIp.open(value)
        return value

    @field_validator(*map(_setting, get_args(PersonLimitName)))
    @classmethod
    def _protects_a_person(cls, value: Limit, info: ValidationInfo) -> Limit:
        if value.max_count > MAX_LOGGED_USES:
            raise ValueError(f"a count can be at most {MAX_LOGGED_USES}")
        if not value.rules and info.data.get("environment") == PRODUCTION:
            raise ValueError("can't be none in production")
        return value

    @field_validator("password_memory", "password_passes")
    @classmethod
    def _costly_enough(cls, value: int, info: ValidationInfo) -> int:
        minimum = cls.model_fields[str(info.field_name)].default
        if value < minimum and info.data.get("environment", PRODUCTION) == PRODUCTION:
            raise ValueError(f"must be at least {minimum} in production")
        return value

    @property
    def rotation(self) -> RotationPolicy:
        """Rotation policy of the signing keys."""
        return RotationPolicy(
            self.signing_algorithm,
            period=timedelta(days=self.signing_key_days),
            lead=timedelta(seconds=self.signing_key_lead_seconds),
        )

    @property
    def allowed_text_countries(self) -> frozenset[str] | None:
        """``text_countries`` as a set; None for all."""
        return None if self.text_countries == (ALL_COUNTRIES,) else frozenset(self.text_countries)

    @property
    def audit_retention(self) -> timedelta:
        """``audit_days`` as a duration."""
        return timedelta(days=self.audit_days)

    @property
    def limits(self) -> Mapping[LimitName, Limit]:
        """All rate limits, by name."""
        return {name: getattr(self, _setting(name)) for name in LIMIT_NAMES}

    @property
    def password_parameters(self) -> Parameters:
        """The parameters of Argon2id."""
        return replace(RFC_9106_LOW_MEMORY, time_cost=self.password_passes, memory_cost=self.password_memory * _KIB)
