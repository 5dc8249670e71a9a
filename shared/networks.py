"""IP networks for rate limits, with the prefix that stands for the person behind an address; and loopback hosts."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

IPV4_PREFIX: Final = 24
IPV6_PREFIX: Final = 64
"""The smallest prefix that providers assign to a household (RFC 6177 section 2), who can use any address in it."""
LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts of URLs that lead to the same machine with every resolver, so that codes and keys may be sent to them over http
(RFC 8252 sections 7.3 and 8.3)."""


@lru_cache(maxsize=4_096)
def prefix(ip: str) -> str:
    """Return the network that is counted as one caller: ``203.0.113.0/24``, or ``2001:db8:1:2::/64`` for IPv6.

    An IPv4-mapped IPv6 address counts as IPv4. A text that is no address, such as a test client's name, is returned.
    """
    address = _address(ip)
    if address is None:
        return ip
    return str(ip_network((address.packed, IPV4_PREFIX if address.version == 4 else IPV6_PREFIX), strict=False))  # noqa: PLR2004 -- IP's version


@lru_cache(maxsize=4_096)
def is_loopback(ip: str) -> bool:
    """Return True for a loopback address."""
    address = _address(ip)
    return address is not None and address.is_loopback


def is_loopback_host(host: str) -> bool:
    """Return True for the host of a URL on the same machine: a loopback address, ``localhost`` or a name below it.

    RFC 6761 section 6.3. An IPv6 address may be in brackets. Browsers keep names below ``localhost`` on the machine,
    but some resolvers ask DNS for them: use ``LOOPBACK_HOSTS`` for a URL that receives a secret.
    """
    name = host.lower().removeprefix("[").removesuffix("]").removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def _address(ip: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(ip)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
