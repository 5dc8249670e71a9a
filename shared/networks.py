"""Which part of an IP address stands for whoever is behind it?"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

IPV4_PREFIX: Final = 24
IPV6_PREFIX: Final = 64
"""What a provider gives to one household at the least (RFC 6177 section 2): single addresses in it are free."""


@lru_cache(maxsize=4_096)
def prefix(ip: str) -> str:
    """The network that is counted as one: ``203.0.113.0/24`` of IPv4, ``2001:db8:1:2::/64`` of IPv6.

    An IPv4 address in IPv6's clothes counts as IPv4. What is no address at all, such as the name that a test's client
    gives itself, is its own network.
    """
    address = _address(ip)
    if address is None:
        return ip
    return str(ip_network((address.packed, IPV4_PREFIX if address.version == 4 else IPV6_PREFIX), strict=False))  # noqa: PLR2004 -- IP's version


@lru_cache(maxsize=4_096)
def is_loopback(ip: str) -> bool:
    """Whether it is this machine itself."""
    address = _address(ip)
    return address is not None and address.is_loopback


def _address(ip: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
