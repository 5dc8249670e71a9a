"""What must auth be told before it starts?"""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from services.auth.limit_settings import LimitSettings
from services.auth.models.signing_keys import Algorithm
from shared.settings import PRODUCTION

DEVELOPMENT_ISSUER: Final = "http://127.0.0.1:8080"
"""Where the embedded gateway listens."""


class AuthSettings(LimitSettings):
    """The environment variables of auth."""

    issuer: str = Field(default="", validate_default=True)
    """The URL under which clients reach the gateway, without a slash at its end: ``iss`` of every access token
    (RFC 8414 section 2). In production it must be given, and be https."""
    signing_algorithm: Algorithm = "ES256"
    """What access tokens are signed with. After a change a new key signs; tokens of the old one still verify."""
    authorization_minutes: int = Field(default=10, ge=1, le=20)
    """How long a magic link may be redeemed."""
    audit_days: int = Field(default=180, ge=1, le=3650)
    """How long entries of the audit are kept. A change takes effect at the next start, for old entries too."""

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
    def authorization_life(self) -> timedelta:
        """``authorization_minutes`` as a duration."""
        return timedelta(minutes=self.authorization_minutes)

    @property
    def audit_kept(self) -> timedelta:
        """``audit_days`` as a duration."""
        return timedelta(days=self.audit_days)
