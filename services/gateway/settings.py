"""Settings of the gateway."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.gateway.requests import Network
from shared.email_addresses import normal_email
from shared.messages.auth.errors import InvalidEmail
from shared.networks import is_loopback_host
from shared.settings import (
    PRODUCTION,
    CommaSeparated,
    OldClientsSettings,
    in_production,
    refuse_in_production,
    split_commas,
    without_credentials,
)
from shared.variables import Unit

MIN_SECRET_CHARACTERS: Final = 16
"""Length of a webhook secret, and of an internal key outside of production."""
MIN_KEY_CHARACTERS: Final = 32
"""Length of an internal key in production: 128 bits in hexadecimal digits."""
MIN_KEY_VARIETY: Final = 8
"""Different characters of an internal key in production. 32 random hexadecimal digits have about 14."""
DEFAULT_KEY_NAME: Final = "default"
"""Name of an internal key that is written without a name."""
WIDEST_IPV4_PROXIES: Final = 8
"""Prefix length of the widest private network, ``10.0.0.0/8``. A wider list of proxies covers much of the Internet."""
WIDEST_IPV6_PROXIES: Final = 7
"""Prefix length of the unique local addresses, ``fc00::/7``."""
RESERVED_NAMES: Final = frozenset({"gateway", "local"})
"""Names in the audit that no operator may have: the console itself, and an open console."""
_IPV4_MAPPED: Final = ip_network("::ffff:0:0/96")
_KEY_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HTTP_ORIGIN: Final = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_OTHER_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9._-]*(:[0-9]{1,5})?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas)]
"""Secrets, separated by commas; two during a rotation."""


def plain(secrets: Secrets) -> tuple[str, ...]:
    """The secrets as plain text."""
    return tuple(secret.get_secret_value() for secret in secrets)


def _long_enough(secrets: Secrets) -> Secrets:
    if any(len(secret) < MIN_SECRET_CHARACTERS for secret in secrets):
        raise ValueError(f"each needs at least {MIN_SECRET_CHARACTERS} characters")
    return secrets


def _long_enough_in_production(secrets: Secrets, info: ValidationInfo) -> Secrets:
    return _long_enough(secrets) if in_production(info) else secrets


def named_key(entry: SecretStr) -> tuple[str, SecretStr]:
    """The name and the key of an entry ``name:key``; an entry without a colon is a key named ``default``.

    Raises:
        ValueError: the name has another form. The text contains no part of the entry.
    """
    name, colon, key = entry.get_secret_value().partition(":")
    if not colon:
        return DEFAULT_KEY_NAME, entry
    if not _KEY_NAME.fullmatch(name):
        raise ValueError("write name:key, with a name of at most 32 lower-case letters, digits and hyphens")
    return name, SecretStr(key.strip())


def _internal_keys(entries: Secrets, info: ValidationInfo) -> Secrets:
    keys = [key.get_secret_value() for _, key in map(named_key, entries)]
    minimum = MIN_KEY_CHARACTERS if in_production(info) else MIN_SECRET_CHARACTERS
    if any(len(key) < minimum for key in keys):
        raise ValueError(f"each key needs at least {minimum} characters: openssl rand -hex 24")
    if in_production(info) and any(map(has_low_variety, keys)):
        raise ValueError("each key must be random: openssl rand -hex 24")
    if len(set(keys)) < len(keys):
        raise ValueError("a key occurs twice")
    return entries


def has_low_variety(secret: str) -> bool:
    """Whether a secret is evidently not random: few characters, a repeated text, or an ascending sequence.

    Random keys of 32 hexadecimal digits are rejected less often than once in 10,000 times.
    """
    triples = [secret[start : start + 3] for start in range(len(secret) - 2)]
    steps = [ord(after) - ord(before) for before, after in pairwise(secret)]
    return (
        len(set(secret)) < MIN_KEY_VARIETY
        or len(set(triples)) < len(triples) * 2 / 3
        or sum(abs(step) <= 1 for step in steps) > len(steps) / 2
    )


def _origins(origins: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    checked = tuple(map(_origin, origins))
    for origin in checked:
        url = urlsplit(origin)
        if in_production(info) and url.scheme == "http" and not is_loopback_host(url.hostname or ""):
            raise ValueError("must be https in production, except for the user's own machine (http://localhost:3000)")
    return checked


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
    # The text is not shown, since it may contain a password.
    raise ValueError("is not an origin such as https://app.example.com or capacitor://localhost")


def _networks(value: Any) -> tuple[Network, ...]:
    return tuple(map(ip_network, split_commas(value)))


def _proxies(networks: tuple[Network, ...], info: ValidationInfo) -> tuple[Network, ...]:
    if in_production(info) and too_wide(networks):
        raise ValueError("covers so many addresses that callers could forge theirs: name the networks of your proxies")
    return networks


def too_wide(networks: Sequence[Network]) -> bool:
    """Whether networks together contain one that is wider than any network of proxies: ``0.0.0.0/0``, or its halves."""
    v4 = [network for network in networks if isinstance(network, IPv4Network)]
    v6 = [network for network in networks if isinstance(network, IPv6Network)]
    return any(network.prefixlen < WIDEST_IPV4_PROXIES for network in collapse_addresses(v4)) or any(
        network.prefixlen < WIDEST_IPV6_PROXIES
        # The IPv4 addresses as IPv6 (RFC 4291 section 2.5.5.2).
        or (network.overlaps(_IPV4_MAPPED) and network.prefixlen < _IPV4_MAPPED.prefixlen + WIDEST_IPV4_PROXIES)
        for network in collapse_addresses(v6)
    )


def operator_of(entry: str, *, test_domains: bool) -> tuple[str, str]:
    """The address, in normal form, and the name of an entry ``name:address`` or ``address``; the name may be empty.

    Raises:
        ValueError: the name or the address has another form. The text contains no part of the entry.
    """
    name, colon, address = entry.rpartition(":")
    if colon and (not _KEY_NAME.fullmatch(name) or name in RESERVED_NAMES):
        raise ValueError(
            "write name:address, with a name of at most 32 lower-case letters, digits and hyphens, not"
            f" {' or '.join(sorted(RESERVED_NAMES))}"
        )
    try:
        return normal_email(address, test_domains=test_domains), name
    except InvalidEmail:
        raise ValueError("contains something that is no e-mail address") from None


def _operators(entries: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    addresses = [operator_of(entry, test_domains=not in_production(info))[0] for entry in entries]
    if len(set(addresses)) < len(addresses):
        raise ValueError("an address occurs twice")
    return entries


class GatewaySettings(OldClientsSettings):
    """Environment variables of the gateway, each with the prefix ``NEST_``."""

    PROCESS = "gateway"
    SECTIONS: ClassVar = {
        "host": "Address",
        "internal_keys": "Keys and webhooks",
        "cors_origins": "Callers",
        "test_login": "Parts of the API",
        "console_open": "Console",
        "failed_authentications_per_minute": "Limits",
    }

    host: str = "127.0.0.1"
    """Address to listen on; ``::`` for every address, of IPv4 and IPv6, ``0.0.0.0`` for those of IPv4."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """TCP port; 0 for any free one."""
    issuer: str = Field(examples=["http://127.0.0.1:8080"])
    """URL under which clients reach the gateway, without a trailing slash: the claim ``iss`` of access tokens (RFC 8414
    section 2) and the start of links in mails. In production auth requires it too, and it must be https."""
    internal_keys: Annotated[Secrets, AfterValidator(_internal_keys)] = ()
    """Secrets of back ends and operators, ``name:key``, each key from ``openssl rand -hex 24``; the audit shows the
    name. A key without a name is named ``default``. Two keys may have one name, during a rotation. If empty, nobody can
    call the methods for operators (docs/operations.md#other-keys)."""
    stripe_webhook_secrets: Annotated[Secrets, AfterValidator(_long_enough_in_production)] = Field(min_length=1)
    """Signing secrets ``whsec_…`` of Stripe's webhook endpoint. At least one: without a secret anybody could sign."""
    stripe_livemode: bool = Field(examples=["false"])
    """``true`` for real money; events and objects of Stripe's other mode are refused."""
    mail_webhook_secrets: Annotated[Secrets, AfterValidator(_long_enough)] = ()
    """Signing secrets of ``/1/webhook/mail``. If empty, there is no such webhook. Each has at least 16 characters
    (docs/operations.md#bounces-and-complaints)."""
    cors_origins: Annotated[CommaSeparated, BeforeValidator(split_commas), AfterValidator(_origins)] = ()
    """Origins of pages that may call the API, separated by commas: ``https://app.example.com``,
    ``capacitor://localhost``."""
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks), AfterValidator(_proxies)] = ()
    """Networks of proxies whose ``x-forwarded-for`` or ``forwarded`` is used: ``10.0.0.0/8``, separated by commas
    (docs/operations.md#proxies)."""
    test_login: bool = False
    """Enables ``POST /login``, which logs any user in without a code, for tests. Refused in production."""
    accounts_api: bool = True
    """Whether the routes of owners, applications and their users are served. Off, they answer 404, as does the page at
    ``/`` and ``/accounts``. On by default: an update must not take away an API that clients use
    (docs/http-api.md#accounts)."""
    phone_api: bool = True
    """Whether the routes of phone logins are served, with ``/login`` if ``test_login`` is on. Off, they answer 404. On
    by default, as ``accounts_api`` (docs/http-api.md#log-in-by-phone)."""
    console_open: bool = False
    """Whether ``/console`` is open without a login, to browsers on the same machine only. Refused in production
    (docs/console.md)."""
    operators: Annotated[CommaSeparated, BeforeValidator(split_commas), AfterValidator(_operators)] = ()
    """Addresses of the people who may log in to ``/console``, ``name:address``, separated by commas; the audit shows
    the name. Without a name it shows the ID of the person's user. If empty, there is no login
    (docs/console.md#on-a-server)."""
    failed_authentications_per_minute: Annotated[int, Unit("requests per minute")] = Field(default=30, ge=1, le=100_000)
    """Requests of one network (/24 of IPv4, /64 of IPv6) per minute and gateway whose wrong internal key, or wrong
    bearer token, is answered with 403 or 401; further ones get 429. Good keys and tokens always pass
    (docs/operations.md#failed-authentications)."""
    reply_seconds: float = Field(default=10.0, gt=0, le=60)
    """Timeout of a call, from the request to the reply."""
    calls_in_flight: Annotated[int, Unit("calls")] = Field(default=2_000, ge=1)
    """Calls that may wait for a reply at the same time; further ones get 429. Fewer may wait for an overloaded
    service (docs/operations.md#overload)."""
    connections: Annotated[int, Unit("connections")] = Field(default=8_000, ge=1)
    """Connections that may be open at the same time. At the limit the idlest one is closed; if none is idle, the new
    one gets 429 (docs/operations.md#connections-and-memory)."""
    connections_per_peer: Annotated[int, Unit("connections")] = Field(default=2_000, ge=1)
    """Connections of one IPv4 address or IPv6 network of 64 bits, as ``connections``. Trusted proxies have no such
    limit, and none of their connections is closed."""
    body_megabytes: Annotated[int, Unit("megabytes")] = Field(default=64, ge=1)
    """Megabytes of request bodies that are held at the same time. At the limit unfinished bodies get 429, the large and
    old ones first (docs/operations.md#connections-and-memory)."""
    health_port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of ``/healthz`` and ``/metrics``; they are not served by default. The gateway serves ``/healthz`` on the
    API's port too."""
    health_host: str = "127.0.0.1"
    """Address of the health port; ``::`` for every address, of IPv4 and IPv6."""

    _no_credentials = field_validator("issuer")(without_credentials)
    _only_outside_production = field_validator("test_login", "console_open")(refuse_in_production)

    @field_validator("issuer")
    @classmethod
    def _is_a_url(cls, value: str, info: ValidationInfo) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.netloc or value.endswith("/"):
            raise ValueError("must be the URL under which clients reach the gateway, without a trailing slash")
        if url.scheme != "https" and info.data.get("environment", PRODUCTION) == PRODUCTION:
            raise ValueError("must be an https URL in production")
        return value
