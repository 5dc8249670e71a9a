"""Settings of the gateway."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.gateway.requests import Network
from shared.settings import PRODUCTION, CommaSeparated, OldClientsSettings, refuse_in_production, split_commas

MIN_KEY_CHARACTERS: Final = 16
_HTTP_ORIGIN: Final = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_OTHER_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._-]*(:[0-9]{1,5})?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas)]
"""Secrets, separated by commas; two during a rotation."""


def plain(secrets: Secrets) -> tuple[str, ...]:
    """The secrets as plain text."""
    return tuple(secret.get_secret_value() for secret in secrets)


def _long_enough(secrets: Secrets) -> Secrets:
    if any(len(secret) < MIN_KEY_CHARACTERS for secret in secrets):
        raise ValueError(f"each needs at least {MIN_KEY_CHARACTERS} characters")
    return secrets


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_origin, origins))


def _origin(text: str) -> str:
    """An origin as browsers send it: web addresses in lower case and without the scheme's own port (RFC 6454).

    Apps have schemes of their own, such as ``capacitor://localhost``, and some of those have no host.
    """
    scheme = text.partition(":")[0].lower()
    if scheme in _DEFAULT_PORTS:
        web_origin = text.lower().removesuffix(_DEFAULT_PORTS[scheme])
        if _HTTP_ORIGIN.fullmatch(web_origin):
            return web_origin
    elif _OTHER_ORIGIN.fullmatch(text):
        return text
    raise ValueError(f"{text!r} is not an origin such as https://app.example.com or capacitor://localhost")


def _networks(value: Any) -> tuple[Network, ...]:
    return tuple(map(ip_network, split_commas(value)))


class GatewaySettings(OldClientsSettings):
    """Environment variables of the gateway, each with the prefix ``NEST_``."""

    host: str = "127.0.0.1"
    """Address to listen on; ``::`` for every address, of IPv4 and IPv6, ``0.0.0.0`` for those of IPv4."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """TCP port; 0 for any free one."""
    issuer: str
    """Claim ``iss`` of access tokens: the URL under which clients reach this gateway, without a trailing slash."""
    internal_keys: Annotated[Secrets, AfterValidator(_long_enough)] = ()
    """Secrets of back ends and operators. If empty, nobody can call the methods for operators."""
    stripe_webhook_secrets: Secrets = Field(min_length=1)
    """Signing secrets ``whsec_…`` of Stripe's webhook endpoint. At least one: without a secret anybody could sign."""
    stripe_livemode: bool
    """True for real money; events of the other mode are refused."""
    mail_webhook_secrets: Annotated[Secrets, AfterValidator(_long_enough)] = ()
    """Signing secrets of ``/1/webhook/mail``. If empty, there is no such webhook."""
    cors_origins: Annotated[CommaSeparated, BeforeValidator(split_commas), AfterValidator(_origins)] = ()
    """Origins of pages that may call the API, separated by commas: ``https://app.example.com``,
    ``capacitor://localhost``."""
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = ()
    """Networks of proxies whose ``x-forwarded-for`` or ``forwarded`` is used: ``10.0.0.0/8``, separated by commas."""
    test_login: bool = False
    """Enables ``POST /login``, which logs any user in without a code, for tests. Refused in production."""
    reply_seconds: float = Field(default=10.0, gt=0, le=60)
    """Timeout of a call, from the request to the reply."""
    calls_in_flight: int = Field(default=2_000, ge=1)
    """Calls that may wait for a reply at the same time; further ones get 429. See ``admission`` for lower limits."""
    connections: int = Field(default=8_000, ge=1)
    """Connections that may be open at the same time; further ones get 429."""
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port for ``/metrics`` and, in addition to the API's port, ``/healthz``; by default there is none."""
    health_host: str = "127.0.0.1"
    """Address of the health port, as ``host``."""

    _test_login_outside_production = field_validator("test_login")(refuse_in_production)

    @field_validator("issuer")
    @classmethod
    def _is_a_url(cls, value: str, info: ValidationInfo) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.netloc or value.endswith("/"):
            raise ValueError("must be the URL under which clients reach the gateway, without a trailing slash")
        if url.scheme != "https" and info.data.get("environment", PRODUCTION) == PRODUCTION:
            raise ValueError("must be an https URL in production")
        return value
