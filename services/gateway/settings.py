"""What the gateway must be told before it starts."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from services.gateway.client_ip import Network
from shared.settings import CommaSeparated, OldClientsSettings, refuse_in_production, split_commas

SHORTEST_KEY: Final = 16
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")


class GatewaySettings(OldClientsSettings):
    """The gateway's environment."""

    host: str = "127.0.0.1"
    """Where it listens; ``0.0.0.0`` or ``::`` for every interface."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """0 takes a free one."""
    issuer: str
    """The ``iss`` of access tokens: the URL under which clients reach this gateway, without a slash at its end."""
    internal_keys: SecretStr = SecretStr("")
    """What our own back ends and operators show, separated by commas; two while one replaces the other. None: nobody
    is internal."""
    stripe_webhook_secrets: SecretStr
    """``whsec_…`` of the webhook endpoint, separated by commas; two while one replaces the other."""
    stripe_livemode: bool
    """Whether this deployment is about real money; what comes from the other mode is refused."""
    mail_webhook_secrets: SecretStr = SecretStr("")
    """What those sign with who tell what became of mails, separated by commas; two while one replaces the other. None:
    ``/1/webhook/mail`` is not there."""
    cors_origins: CommaSeparated = ()
    """Pages that may call from a browser: ``https://app.example.com``, separated by commas."""
    trusted_proxies: CommaSeparated = ()
    """Networks whose ``x-forwarded-for`` is believed: ``10.0.0.0/8``, separated by commas."""
    test_login: bool = False
    """Whether ``POST /login`` logs anybody in without a code, for tests. Refused in production."""
    reply_seconds: float = Field(default=10.0, gt=0, le=60)
    """How long a call waits for its answer."""
    calls_in_flight: int = Field(default=2_000, ge=1)
    """How many calls may wait at once; more are told to come back."""
    connections: int = Field(default=8_000, ge=1)
    """How many connections may be open at once."""
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """Where ``/healthz`` and ``/metrics`` are served besides; nowhere by default."""
    health_host: str = "127.0.0.1"

    _for_tests = field_validator("test_login")(refuse_in_production)
    _split = field_validator("cors_origins", "trusted_proxies", mode="before")(split_commas)

    @field_validator("internal_keys", "mail_webhook_secrets")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if any(len(key) < SHORTEST_KEY for key in _parts(value)):
            raise ValueError(f"each needs at least {SHORTEST_KEY} characters")
        return value

    @field_validator("stripe_webhook_secrets")
    @classmethod
    def _at_least_one(cls, value: SecretStr) -> SecretStr:
        if not _parts(value):
            # A signature under an empty secret can be computed by anyone.
            raise ValueError("at least one is needed")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin as browsers write it, such as https://app.example.com")
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
            raise ValueError("NEST_ISSUER must be the URL under which clients reach the gateway, no slash at its end")
        if self.production and url.scheme != "https":
            raise ValueError("NEST_ISSUER must be an https URL in production")
        return self

    @property
    def internal(self) -> tuple[str, ...]:
        """The internal keys."""
        return _parts(self.internal_keys)

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """Stripe's signing secrets, one at least."""
        return _parts(self.stripe_webhook_secrets)

    @property
    def mail_secrets(self) -> tuple[str, ...]:
        """What notices about mails are signed with."""
        return _parts(self.mail_webhook_secrets)

    @property
    def proxies(self) -> tuple[Network, ...]:
        """The trusted proxies' networks."""
        return tuple(ip_network(network) for network in self.trusted_proxies)


def _parts(secrets: SecretStr) -> tuple[str, ...]:
    parts: tuple[str, ...] = split_commas(secrets.get_secret_value())
    return parts
