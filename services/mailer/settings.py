"""What must the mailer be told before it starts?"""

from __future__ import annotations

from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from services.mailer.errors import UnusableAddress
from services.mailer.models.addresses import usable_address
from shared.settings import ServiceSettings


def _address(value: str) -> str:
    try:
        usable = usable_address(value)
    except UnusableAddress:
        raise ValueError("is not a mail address") from None
    if not usable.isascii():
        raise ValueError("must be an address in ASCII")
    return usable


def _sender(value: str) -> str:
    _address(parseaddr(value)[1])
    return value


Line = Annotated[str, Field(pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$", max_length=100)]
"""Text without line breaks and control characters."""


class MailerSettings(ServiceSettings):
    """The mailer's environment variables."""

    smtp_host: str = Field(min_length=1)
    """The mail server's name; its certificate must bear it."""
    smtp_port: int = Field(default=587, ge=1, le=65_535)
    """587 with STARTTLS, 465 with TLS from the start."""
    smtp_tls: Literal["required", "implicit", "none"] = "required"
    """``required``: STARTTLS or no mail; ``implicit``: TLS from the first byte; ``none``: refused in production."""
    smtp_username: str | None = Field(default=None, min_length=1)
    """None for a server that asks for no login."""
    smtp_password: SecretStr | None = None
    """Goes with the user name."""
    smtp_ca_file: Path | None = None
    """PEM certificates to trust instead of the system's, for a server of your own."""
    smtp_connections: int = Field(default=8, ge=1, le=64)
    """How many connections a process keeps at most."""
    smtp_timeout: float = Field(default=20.0, ge=1, le=40)
    """Seconds that one mail may take with the server."""
    mail_from: Annotated[Line, AfterValidator(_sender)]
    """Who mails come from: ``Product <mail@example.com>``, or the address alone."""
    mail_product_name: Line
    """How mails call the product."""
    mail_support_address: Annotated[str, AfterValidator(_address)]
    """Where a person who has a question may write to."""
    mail_accent_colour: str = Field(default="#2f57d6", pattern=r"^#[0-9a-fA-F]{6}$")
    """The colour of buttons; their words are white."""
    mail_logo_url: str | None = Field(default=None, pattern=r"^https?://[^\s\"<>]+$")
    """An image, shown 32 pixels high in place of the product's name."""
    text_provider: Literal["none", "twilio", "inbox", "console"] = "none"
    """Who carries texts. ``inbox``: the mail server gets them, as mails to ``<number>@texts.localhost``, which the
    embedded inbox shows as texts; ``console``: the terminal shows them. Both are refused in production."""
    text_domain: str | None = Field(default=None, pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")
    """The website whose pages a phone's browser may fill a code in on by itself: ``example.com``."""
    text_timeout: float = Field(default=8.0, ge=1, le=20)
    """Seconds that one text may take with the provider."""
    twilio_account_sid: str | None = Field(default=None, pattern=r"^AC[0-9a-zA-Z]{32}$")
    """``AC…``."""
    twilio_auth_token: SecretStr | None = None
    """The account's secret; an empty one is none."""
    twilio_messaging_service_sid: str | None = Field(default=None, pattern=r"^MG[0-9a-zA-Z]{32}$")
    """``MG…``: a Messaging Service chooses the number or name that a text comes from."""
    twilio_api_base: str | None = Field(default=None, pattern=r"^https?://[^\s/]+$")
    """A test double instead of Twilio; refused in production."""

    @field_validator("smtp_tls")
    @classmethod
    def _encrypted_in_production(cls, value: str, info: ValidationInfo) -> str:
        if value == "none" and info.data.get("environment", "production") == "production":
            raise ValueError("none is refused in production: mails hold links that log people in")
        return value

    @field_validator("text_provider")
    @classmethod
    def _reaches_phones_in_production(cls, value: str, info: ValidationInfo) -> str:
        if value in ("inbox", "console") and info.data.get("environment", "production") == "production":
            raise ValueError(f"{value} is refused in production: texts hold codes that log people in")
        return value

    @field_validator("twilio_api_base")
    @classmethod
    def _no_double_in_production(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("environment", "production") == "production":
            raise ValueError("is refused in production: texts would go to a test double")
        return value

    @field_validator("smtp_ca_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("there is no such file")
        return value

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("NEST_SMTP_USERNAME and NEST_SMTP_PASSWORD: give both, or neither")
        return self

    @model_validator(mode="after")
    def _whole_account(self) -> Self:
        account = {
            "NEST_TWILIO_ACCOUNT_SID": self.twilio_account_sid,
            "NEST_TWILIO_AUTH_TOKEN": self.twilio_auth_token,
            "NEST_TWILIO_MESSAGING_SERVICE_SID": self.twilio_messaging_service_sid,
        }
        missing = [name for name, value in account.items() if not value]
        if self.text_provider == "twilio" and missing:
            raise ValueError(f"NEST_TEXT_PROVIDER is twilio, which needs {' and '.join(missing)}")
        return self
