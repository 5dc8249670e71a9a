"""What must auth be told before it starts?"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, FilePath, ValidationInfo, field_validator

from services.auth.account_settings import AccountSettings
from services.auth.limit_settings import LimitSettings
from services.auth.phone.models import COUNTRIES
from services.auth.sessions.geoip import GeoIp
from services.auth.signing_keys.models import RotationPolicy
from shared.messages.auth.signing_keys import JWKS_SECONDS, Algorithm
from shared.settings import PRODUCTION, CommaSeparated, refuse_in_production, split_commas

DEVELOPMENT_ISSUER: Final = "http://127.0.0.1:8080"
"""Where the embedded gateway listens."""
EVERY_COUNTRY: Final = "all"


class AuthSettings(LimitSettings, AccountSettings):
    """The environment variables of auth."""

    issuer: str = Field(default="", validate_default=True)
    """The URL under which clients reach the gateway, without a slash at its end: ``iss`` of every access token
    (RFC 8414 section 2). In production it must be given, and be https."""
    signing_algorithm: Algorithm = "ES256"
    """What tokens are signed with. After a change a new key follows, as in any rotation."""
    signing_key_days: int = Field(default=90, ge=1, le=3650)
    """How long a key signs before the next one follows."""
    signing_key_lead_seconds: int = Field(default=900, ge=1, le=86_400)
    """How long a key is published before it signs: longer than anybody keeps the public keys without asking again."""
    authorization_minutes: int = Field(default=10, ge=1, le=20)
    """How long a magic link may be redeemed."""
    phone_code_minutes: int = Field(default=10, ge=1, le=10)
    """How long a code by text may be redeemed."""
    text_countries: CommaSeparated = ()
    """Countries whose phone numbers get texts, as ISO 3166-1 has them (``CH,DE``), or ``all``. None by default: each
    text costs money."""
    test_login: bool = False
    """Whether ``POST /login`` logs anybody in without a code, for tests. Refused in production."""
    audit_days: int = Field(default=180, ge=1, le=3650)
    """How long entries of the audit are kept. A change takes effect at the next start, for old entries too."""

    user_export_days: int = Field(default=7, ge=1, le=30)
    """How long what was exported of a user can be read, counted from the end of the export."""

    places_database: FilePath | None = None
    """Where networks are, in MaxMind's format (GeoLite2 City or Country, or the like), for the list of a user's
    sessions. Read at the start. None by default: no place is told."""

    _for_tests = field_validator("test_login")(refuse_in_production)
    _split_countries = field_validator("text_countries", mode="before")(split_commas)

    @field_validator("text_countries")
    @classmethod
    def _have_phone_numbers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted({country for country in value if country not in COUNTRIES})
        if unknown and value != (EVERY_COUNTRY,):
            raise ValueError(f"write CH,DE or all; these are no countries with phone numbers: {', '.join(unknown)}")
        return value

    @field_validator("places_database")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        GeoIp.open(value)
        return value

    @field_validator("signing_key_lead_seconds")
    @classmethod
    def _longer_than_kept(cls, value: int, info: ValidationInfo) -> int:
        if value <= JWKS_SECONDS and info.data.get("environment", PRODUCTION) == PRODUCTION:
            raise ValueError(f"must be more than {JWKS_SECONDS} in production: so long others keep the public keys")
        return value

    @field_validator("issuer")
    @classmethod
    def _reachable(cls, value: str, info: ValidationInfo) -> str:
        production = info.data.get("environment") == PRODUCTION
        if not value and not production:
            return DEVELOPMENT_ISSUER
        if not value:
            raise ValueError("is not set, and in production must be")
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("write a whole URL, https://…")
        if production and parts.scheme != "https":
            raise ValueError("must be https in production")
        return value.rstrip("/")

    @property
    def rotation(self) -> RotationPolicy:
        """When signing keys follow each other."""
        return RotationPolicy(
            self.signing_algorithm,
            period=timedelta(days=self.signing_key_days),
            lead=timedelta(seconds=self.signing_key_lead_seconds),
        )

    @property
    def authorization_lifetime(self) -> timedelta:
        """``authorization_minutes`` as a duration."""
        return timedelta(minutes=self.authorization_minutes)

    @property
    def phone_code_lifetime(self) -> timedelta:
        """``phone_code_minutes`` as a duration."""
        return timedelta(minutes=self.phone_code_minutes)

    @property
    def allowed_text_countries(self) -> frozenset[str] | None:
        """``text_countries``; None for all."""
        return None if self.text_countries == (EVERY_COUNTRY,) else frozenset(self.text_countries)

    @property
    def user_export_retention(self) -> timedelta:
        """``user_export_days`` as a duration."""
        return timedelta(days=self.user_export_days)

    @property
    def audit_retention(self) -> timedelta:
        """``audit_days`` as a duration."""
        return timedelta(days=self.audit_days)
