"""What must the mailer be told before it starts?"""

from __future__ import annotations

import re
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from services.mailer.errors import UnusableAddress
from services.mailer.models.addresses import usable_address
from services.mailer.smtp_settings import SmtpSettings


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


LONGEST_TAGGED: Final = 31
"""Characters: with ``+`` and 32 more, a local part has 64 (RFC 5321 section 4.5.3.1.1)."""
Line = Annotated[str, Field(pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$", max_length=100)]
"""Text without line breaks and control characters."""


class MailerSettings(SmtpSettings):
    """The mailer's environment variables."""

    mail_from: Annotated[Line, AfterValidator(_sender)]
    """Who mails come from: ``Product <mail@example.com>``, or the address alone."""
    mail_product_name: Line
    """How mails call the product."""
    mail_support_address: Annotated[str, AfterValidator(_address)]
    """Where a person who has a question may write to."""
    mail_accent_colour: str = Field(default="#2f57d6", pattern=r"^#[0-9a-fA-F]{6}$")
    """The colour of buttons; their words are white or dark, whichever can be read."""
    mail_background_colour: str = Field(default="#f3f4f6", pattern=r"^#[0-9a-fA-F]{6}$")
    """Behind the card that holds the words, in light mode."""
    mail_logo_url: str | None = Field(default=None, pattern=r"^https?://[^\s\"<>]+$")
    """An image, shown 32 pixels high in place of the product's name."""
    mail_locale: str = Field(default="en", pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")
    """The language of people who have not said which they read, unless their app's looks name another."""
    mail_templates: Path | None = None
    """A folder of templates that go before Nest's own."""
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

    mailchimp_api_key: SecretStr | None = None
    """``…-us21``; marketing consents are carried to Mailchimp when it is set. An empty one is none."""
    mailchimp_list_id: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,40}$")] | None = None
    """The audience's id; goes with the key."""
    mailchimp_timeout: float = Field(default=10.0, ge=1, le=30)
    """Seconds that one call may take."""
    mailchimp_api_base: str | None = Field(default=None, pattern=r"^https?://[^\s]+[^\s/]$")
    """A test double instead of Mailchimp; refused in production."""

    @field_validator("mailchimp_api_key", mode="before")
    @classmethod
    def _empty_key_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("mailchimp_api_key")
    @classmethod
    def _names_its_data_centre(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[0-9A-Za-z]{8,64}-[a-z]{2,4}[0-9]{1,3}", value.get_secret_value()):
            raise ValueError("must end with a dash and the data centre, as Mailchimp shows it: …-us21")
        return value

    @field_validator("text_provider")
    @classmethod
    def _reaches_phones_in_production(cls, value: str, info: ValidationInfo) -> str:
        if value in ("inbox", "console") and info.data.get("environment", "production") == "production":
            raise ValueError(f"{value} is refused in production: texts hold codes that log people in")
        return value

    @field_validator("twilio_api_base", "mailchimp_api_base")
    @classmethod
    def _no_double_in_production(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("environment", "production") == "production":
            raise ValueError("is refused in production: a test double would get what is meant for people")
        return value

    @model_validator(mode="after")
    def _whole_list(self) -> Self:
        if (self.mailchimp_api_key is None) != (self.mailchimp_list_id is None):
            raise ValueError("NEST_MAILCHIMP_API_KEY and NEST_MAILCHIMP_LIST_ID: give both, or neither")
        return self

    @model_validator(mode="after")
    def _return_path_has_room(self) -> Self:
        local = parseaddr(self.mail_from)[1].rpartition("@")[0]
        if self.mail_return_path_tags and len(local) > LONGEST_TAGGED:
            raise ValueError(
                f"NEST_MAIL_RETURN_PATH_TAGS needs a NEST_MAIL_FROM of {LONGEST_TAGGED} characters before @"
            )
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
