"""Settings of the gateway."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from services.gateway.client_ip import Network
from shared.settings import CommaSeparated, OldClientsSettings, refuse_in_production, split_commas

MIN_KEY_CHARACTERS: Final = 16
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")


class GatewaySettings(OldClientsSettings):
    """Environment variables of the gateway, each with the prefix ``NEST_``."""

    host: str = "127.0.0.1"
    """Address to listen on; ``0.0.0.0`` or ``::`` for every interface."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """TCP port; 0 for any free one."""
    issuer: str
    """Claim ``iss`` of access tokens: the URL under which clients reach this gateway, without a trailing slash."""
    internal_keys: SecretStr = SecretStr("")
    """Secrets of back ends and operators, separated by commas; two during a rotation. If empty, nobody can call the
    methods for operators."""
    stripe_webhook_secrets: SecretStr
    """Signing secrets ``whsec_…`` of Stripe's webhook endpoint, separated by commas; two during a rotation."""
    stripe_livemode: bool
    """True for real money; events of the other mode are refused."""
    mail_webhook_secrets: SecretStr = SecretStr("")
    """Signing secrets of ``/1/webhook/mail``, separated by commas; two during a rotation. If empty, there is no such
    webhook."""
    cors_origins: CommaSeparated = ()
    """Origins of pages that may call the API: ``https://app.example.com``, separated by commas."""
    trusted_proxies: CommaSeparated = ()
    """Networks of proxies whose ``x-forwarded-for`` is used: ``10.0.0.0/8``, separated by commas."""
    test_login: bool = False
    """Enables ``POST /login``, which logs any user in without a code, for tests. Refused in production."""
    reply_seconds: float = Field(default=10.0, gt=0, le=60)
    """Timeout of a call, from the request to the reply."""
    calls_in_flight: int = Field(default=2_000, ge=1)
    """Calls that may wait for a reply at the same time; further ones get 429."""
    connections: int = Field(default=8_000, ge=1)
    """Connections that may be open at the same time; further ones get 429."""
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port for ``/metrics`` and, in addition to the API's port, ``/healthz``; by default there is none."""
    health_host: str = "127.0.0.1"
    """Address of the health port."""

    _test_login_outside_production = field_validator("test_login")(refuse_in_production)
    _split = field_validator("cors_origins", "trusted_proxies", mode="before")(split_commas)

    @field_validator("internal_keys", "mail_webhook_secrets")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if any(len(key) < MIN_KEY_CHARACTERS for key in _split(value)):
            raise ValueError(f"each needs at least {MIN_KEY_CHARACTERS} characters")
        return value

    @field_validator("stripe_webhook_secrets")
    @classmethod
    def _at_least_one(cls, value: SecretStr) -> SecretStr:
        if not _split(value):
            # Anybody can compute a signature with an empty secret.
            raise ValueError("at least one is needed")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin such as https://app.example.com")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)
        return value

    @model_validator(mode="after")
    def _issuer_is_a_url(self) -> Self:
        url = urlsplit(self.issuer)
        if url.scheme not in ("http", "https") or not url.netloc or self.issuer.endswith("/"):
            raise ValueError(
                "NEST_ISSUER must be the URL under which clients reach the gateway, without a trailing slash"
            )
        if self.production and url.scheme != "https":
            raise ValueError("NEST_ISSUER must be an https URL in production")
        return self

    @property
    def parsed_internal_keys(self) -> tuple[str, ...]:
        """Internal keys."""
        return _split(self.internal_keys)

    @property
    def parsed_stripe_secrets(self) -> tuple[str, ...]:
        """Signing secrets of Stripe's webhook endpoint, at least one."""
        return _split(self.stripe_webhook_secrets)

    @property
    def parsed_mail_secrets(self) -> tuple[str, ...]:
        """Signing secrets of the mail webhook."""
        return _split(self.mail_webhook_secrets)

    @property
    def parsed_proxies(self) -> tuple[Network, ...]:
        """Networks of trusted proxies."""
        return tuple(ip_network(network) for network in self.trusted_proxies)


def _split(secrets: SecretStr) -> tuple[str, ...]:
    values: tuple[str, ...] = split_commas(secrets.get_secret_value())
    return values
