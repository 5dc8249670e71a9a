"""What must the mailer be told of the mail servers, and of what they tell it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from services.mailer.smtp import Tls
from shared.settings import PRODUCTION, ServiceSettings

Name = Field(default=None, min_length=1)


class SmtpSettings(ServiceSettings):
    """The environment variables about handing mails over."""

    smtp_host: str = Field(min_length=1)
    """The mail server's name; its certificate must bear it."""
    smtp_port: int = Field(default=587, ge=1, le=65_535)
    """587 with STARTTLS, 465 with TLS from the start."""
    smtp_tls: Literal["required", "implicit", "none"] = "required"
    """``required``: STARTTLS or no mail; ``implicit``: TLS from the first byte; ``none``: refused in production."""
    smtp_username: str | None = Name
    """None for a server that asks for no login."""
    smtp_password: SecretStr | None = None
    """Goes with the user name."""
    smtp_second_host: str | None = Name
    """A server that takes mails while the first one refuses or hangs; better of another provider."""
    smtp_second_port: int = Field(default=587, ge=1, le=65_535)
    """As of the first."""
    smtp_second_tls: Literal["required", "implicit", "none"] = "required"
    """As of the first."""
    smtp_second_username: str | None = Name
    """As of the first."""
    smtp_second_password: SecretStr | None = None
    """As of the first."""
    smtp_ca_file: Path | None = None
    """PEM certificates to trust instead of the system's, for servers of your own."""
    smtp_connections: int = Field(default=8, ge=1, le=64)
    """How many connections a process keeps at most, with each server."""
    # Two servers that hang must not take the 60 seconds that a message may.
    smtp_timeout: float = Field(default=20.0, ge=1, le=20)
    """Seconds that one mail may take with a server."""
    mail_return_path_tags: bool = False
    """Whether each mail has a return address of its own, ``mail+<order>@example.com``, for a mail server of your own
    that delivers what comes back there to ``/1/webhook/mail``."""
    issuer: str
    """The URL under which clients reach the gateway: links to unsubscribe lead there."""

    @field_validator("smtp_tls", "smtp_second_tls")
    @classmethod
    def _encrypted_in_production(cls, value: Tls, info: ValidationInfo) -> Tls:
        if value == "none" and info.data.get("environment", PRODUCTION) == PRODUCTION:
            raise ValueError("none is refused in production: mails hold links that log people in")
        return value

    @field_validator("smtp_ca_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("there is no such file")
        return value

    @field_validator("smtp_second_host", "smtp_second_username", "smtp_second_password", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @field_validator("issuer")
    @classmethod
    def _is_a_url(cls, value: str, info: ValidationInfo) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.netloc or value.endswith("/"):
            raise ValueError("must be the URL under which clients reach the gateway, no slash at its end")
        if url.scheme != "https" and info.data.get("environment", PRODUCTION) == PRODUCTION:
            raise ValueError("must be an https URL in production")
        return value

    @model_validator(mode="after")
    def _whole_logins(self) -> Self:
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("NEST_SMTP_USERNAME and NEST_SMTP_PASSWORD: give both, or neither")
        if (self.smtp_second_username is None) != (self.smtp_second_password is None):
            raise ValueError("NEST_SMTP_SECOND_USERNAME and NEST_SMTP_SECOND_PASSWORD: give both, or neither")
        if self.smtp_second_host is None and self.smtp_second_username is not None:
            raise ValueError("NEST_SMTP_SECOND_USERNAME is of no use without NEST_SMTP_SECOND_HOST")
        return self
