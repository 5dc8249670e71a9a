"""Environment variables of the mailer."""

from __future__ import annotations

import re
from datetime import timedelta
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, EmailStr, Field, SecretStr, ValidationInfo, field_validator

from services.mailer.mails.addresses import UnusableAddress, usable_address
from services.mailer.smtp.smtp_client import Tls
from shared.messages.types import Locale
from shared.settings import ServiceSettings, in_production, without_credentials
from shared.variables import Unit

MAX_TAGGED_LOCAL_PART: Final = 31
"""Characters: with ``+`` and a tag of 32 characters, a local part has 64 (RFC 5321 section 4.5.3.1.1)."""


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
Name = Field(default=None, min_length=1)


_ACCOUNTS: Final = {
    "smtp_password": "smtp_username",
    "smtp_second_password": "smtp_second_username",
    "mailchimp_list_id": "mailchimp_api_key",
}
"""Settings by those that must be set together with them."""


class MailerSettings(ServiceSettings):
    """Environment variables of the mailer."""

    PROCESS = "mailer"
    SECTIONS: ClassVar = {
        "smtp_host": "Mail server",
        "smtp_second_host": "Second mail server",
        "smtp_ca_file": "Sending",
        "mail_from": "Appearance of mails",
        "text_provider": "Texts",
        "mailchimp_api_key": "Mailchimp",
        "webhook_private_addresses": "Webhooks",
        "deliveries_days": "Retention",
    }

    smtp_host: str = Field(min_length=1)
    """Host name of the mail server; its certificate must be valid for it."""
    smtp_port: int = Field(default=587, ge=1, le=65_535)
    """587 with STARTTLS, 465 with implicit TLS."""
    smtp_tls: Tls = "required"
    """``required``: STARTTLS or no mail; ``implicit``: TLS from the first byte; ``none``: refused in production."""
    smtp_username: SecretStr | None = Name
    """A secret too, since some providers use a token as user name and password. Unset for a server without
    authentication."""
    smtp_password: SecretStr | None = Field(default=None, validate_default=True)
    """Required with the user name."""
    smtp_second_host: str | None = Name
    """Fallback server, used while the first one refuses connections or hangs; preferably of another provider
    (docs/operations.md#mail)."""
    smtp_second_port: int = Field(default=587, ge=1, le=65_535)
    """Port of the second server, as for the first."""
    smtp_second_tls: Tls = "required"
    """TLS of the second server, as for the first."""
    smtp_second_username: SecretStr | None = Name
    """User name at the second server; an empty value counts as unset."""
    smtp_second_password: SecretStr | None = Field(default=None, validate_default=True)
    """Required with that user name; an empty value counts as unset."""
    smtp_ca_file: Path | None = None
    """PEM file of CA certificates to trust instead of the system's, for servers of your own."""
    smtp_connections: Annotated[int, Unit("connections")] = Field(default=8, ge=1, le=64)
    """Maximum number of connections per process and server."""
    # Attempts at two servers that hang must take less than the 60 seconds that a message may take.
    smtp_timeout: Annotated[float, Unit("seconds")] = Field(default=20.0, ge=1, le=20)
    """Seconds that one mail may take with a server."""
    mail_return_path_tags: bool = False
    """Whether each mail has its own return path, ``mail+<order>@example.com``: for a mail server of your own that posts
    bounces to ``/1/webhook/mail`` (docs/operations.md#bounces-and-complaints)."""
    issuer: str
    """Public URL of the gateway; unsubscribe links and links to apps start with it."""
    mail_from: Annotated[Line, AfterValidator(_sender)]
    """Sender of mails: ``Product <mail@example.com>``, or the address alone."""
    mail_product_name: Line
    """Name of the product in mails."""
    mail_support_address: Annotated[str, AfterValidator(_address)]
    """Address for questions, shown in mails."""
    mail_accent_colour: str = Field(default="#2f57d6", pattern=r"^#[0-9a-fA-F]{6}$")
    """Colour of buttons; their labels are white or dark, whichever is legible."""
    mail_background_colour: str = Field(default="#f3f4f6", pattern=r"^#[0-9a-fA-F]{6}$")
    """Colour behind the card that holds the content, in light mode."""
    mail_logo_url: str | None = Field(default=None, pattern=r"^https?://[^\s\"<>]+$")
    """Image that replaces the product's name, shown 32 pixels high."""
    mail_locale: Locale = "en"
    """Language for people who have not chosen one, unless the branding of their app names another
    (docs/operations.md#languages)."""
    mail_templates: Path | None = None
    """Folder of templates that override Nest's own (docs/operations.md#your-own-templates)."""
    text_provider: Literal["none", "twilio", "inbox", "console"] = "none"
    """Provider of texts. ``inbox``: texts are sent to the mail server as mails to ``<number>@texts.localhost``, which
    the embedded inbox shows as texts; ``console``: the terminal shows them. Both are refused in production
    (docs/operations.md#texts)."""
    text_domain: str | None = Field(default=None, pattern=r"^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$")
    """Website on whose pages a phone's browser may fill in the login code automatically: ``example.com``."""
    text_timeout: Annotated[float, Unit("seconds")] = Field(default=8.0, ge=1, le=20)
    """Seconds that one text may take with the provider."""
    twilio_account_sid: str | None = Field(default=None, validate_default=True, pattern=r"^AC[0-9a-zA-Z]{32}$")
    """ID of Twilio's account, ``AC…``; required with ``twilio``."""
    twilio_auth_token: SecretStr | None = Field(default=None, validate_default=True)
    """Secret of the account; required with ``twilio``. An empty value counts as unset."""
    twilio_messaging_service_sid: str | None = Field(
        default=None, validate_default=True, pattern=r"^MG[0-9a-zA-Z]{32}$"
    )
    """``MG…``, required with ``twilio``: the Messaging Service that chooses the number or name a text is sent from."""
    twilio_api_base: str | None = Field(default=None, pattern=r"^https?://[^\s/]+$")
    """URL of a test double instead of Twilio; refused in production."""

    mailchimp_api_key: SecretStr | None = None
    """``…-us21``; with a key, marketing consents are synced to Mailchimp. An empty value counts as unset
    (docs/operations.md#mailchimp)."""
    mailchimp_list_id: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,40}$")] | None = Field(
        default=None, validate_default=True
    )
    """ID of the audience; required with the key."""
    mailchimp_timeout: Annotated[float, Unit("seconds")] = Field(default=10.0, ge=1, le=30)
    """Seconds that one call may take."""
    mailchimp_api_base: str | None = Field(default=None, pattern=r"^https?://[^\s]+[^\s/]$")
    """URL of a test double instead of Mailchimp; refused in production."""

    webhook_private_addresses: bool = False
    """Whether webhooks may be sent to private addresses, over ``http`` and to every port: for apps in your own network.
    Whoever may create webhook endpoints can then reach the services there (docs/webhooks.md#addresses)."""
    webhook_timeout: Annotated[float, Unit("seconds")] = Field(default=10.0, ge=1, le=20)
    """Seconds that one request to a webhook endpoint may take."""
    webhook_days: int = Field(default=30, ge=7, le=365)
    """Retention of webhook deliveries after their last change, with their attempts; within it they can be replayed."""
    operators_address: EmailStr | None = None
    """Recipient of a mail when a webhook endpoint is disabled because it fails. Unset: no mail."""

    deliveries_days: int = Field(default=90, ge=31, le=3650)
    """Retention of deliveries after their last change; a bounce or complaint that comes later fits no mail. A change
    takes effect at the next start, for old deliveries too (docs/operations.md#mail)."""

    @property
    def delivery_retention(self) -> timedelta:
        """``deliveries_days`` as a duration."""
        return timedelta(days=self.deliveries_days)

    @property
    def webhook_retention(self) -> timedelta:
        """``webhook_days`` as a duration."""
        return timedelta(days=self.webhook_days)

    _no_credentials = field_validator("issuer", "mail_logo_url", "twilio_api_base", "mailchimp_api_base")(
        without_credentials
    )

    @field_validator("smtp_tls", "smtp_second_tls")
    @classmethod
    def _encrypted_in_production(cls, value: Tls, info: ValidationInfo) -> Tls:
        if value == "none" and in_production(info):
            raise ValueError("none is refused in production: mails contain links that log people in")
        return value

    @field_validator("smtp_ca_file")
    @classmethod
    def _file_exists(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("there is no such file")
        return value

    @field_validator(
        "smtp_second_host", "smtp_second_username", "smtp_second_password", "mailchimp_api_key", mode="before"
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return value or None

    @field_validator("issuer")
    @classmethod
    def _is_public_url(cls, value: str, info: ValidationInfo) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.netloc or value.endswith("/"):
            raise ValueError("must be the public URL of the gateway, without a slash at the end")
        if url.scheme != "https" and in_production(info):
            raise ValueError("must be an https URL in production")
        return value

    @field_validator("mailchimp_api_key")
    @classmethod
    def _names_its_data_centre(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[0-9A-Za-z]{8,64}-[a-z]{2,4}[0-9]{1,3}", value.get_secret_value()):
            raise ValueError("must end with a dash and the data centre, as Mailchimp shows it: …-us21")
        return value

    @field_validator("text_provider")
    @classmethod
    def _reaches_phones_in_production(cls, value: str, info: ValidationInfo) -> str:
        if value in ("inbox", "console") and in_production(info):
            raise ValueError(f"{value} is refused in production: texts contain codes that log people in")
        return value

    @field_validator("twilio_api_base", "mailchimp_api_base")
    @classmethod
    def _no_double_in_production(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and in_production(info):
            raise ValueError("is refused in production: a test double would receive personal data")
        return value

    @field_validator("smtp_password", "smtp_second_password", "mailchimp_list_id")
    @classmethod
    def _completes_its_account(cls, value: Any, info: ValidationInfo) -> Any:
        # A validator of the second field, not of the model, which pydantic skips if any other setting is wrong.
        second = str(info.field_name)
        first = _ACCOUNTS[second]
        if first in info.data and (info.data[first] is None) != (value is None):
            raise ValueError(f"NEST_{first.upper()} and NEST_{second.upper()}: set both, or neither")
        return value

    @field_validator("smtp_second_username")
    @classmethod
    def _has_a_server(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and info.data.get("smtp_second_host", "") is None:
            raise ValueError("requires NEST_SMTP_SECOND_HOST")
        return value

    @field_validator("mail_from")
    @classmethod
    def _fits_the_return_path(cls, value: str, info: ValidationInfo) -> str:
        local = parseaddr(value)[1].rpartition("@")[0]
        if info.data.get("mail_return_path_tags") and len(local) > MAX_TAGGED_LOCAL_PART:
            raise ValueError(
                f"NEST_MAIL_RETURN_PATH_TAGS requires at most {MAX_TAGGED_LOCAL_PART} characters before the @"
            )
        return value

    @field_validator("twilio_account_sid", "twilio_auth_token", "twilio_messaging_service_sid")
    @classmethod
    def _completes_the_twilio_account(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("text_provider") == "twilio" and not value:
            raise ValueError("is required, because NEST_TEXT_PROVIDER is twilio")
        return value
