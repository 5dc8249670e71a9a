"""Destinations that webhooks may be sent to: rules for URLs, and for the addresses that sockets connect to.

Anybody who may create an endpoint chooses a URL that this process calls from inside its network (server-side request
forgery, https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html). The
address is checked when its socket is created. A name that resolves to another address a moment later gains nothing, and
neither does an address in an unusual form, such as ``http://2130706433``.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

from yarl import URL

from shared.messages.mailer.errors import WebhookUrlRefused

HTTPS: Final = 443
FIRST_UNPRIVILEGED_PORT: Final = 1024
"""Ports below it belong to system services, such as mail and SSH."""
_REFUSED: Final = tuple(
    map(
        ip_network,
        (
            # https://www.iana.org/assignments/iana-ipv4-special-registry
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            # Metadata and DNS of Azure, at an address that looks public.
            "168.63.129.16/32",
            # https://www.iana.org/assignments/iana-ipv6-special-registry. All global addresses are in 2000::/3.
            "::/3",
            "2001::/23",
            "2001:db8::/32",
            "3fff::/20",
            "4000::/2",
            "8000::/1",
        ),
    )
)
_NAT64: Final = ip_network("64:ff9b::/96")
_TO_IPV4: Final = ip_network("2002::/16")


class AddressRefused(OSError):
    """The address is private, or otherwise not a public one."""

    def __init__(self) -> None:
        # One text for all addresses, so that the failures of several are reported as one.
        super().__init__("the address is not public")


def is_public(address: str) -> bool:
    """Return True if webhooks may be sent to an IP address without ``NEST_WEBHOOK_PRIVATE_ADDRESSES``."""
    ip = ip_address(address.partition("%")[0])
    embedded = _embedded(ip)
    if embedded is not None:
        return is_public(str(embedded))
    return not any(ip in network for network in _REFUSED if network.version == ip.version)


def _embedded(ip: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to: mapped, translated (RFC 6052) or tunnelled (RFC 3056)."""
    if isinstance(ip, IPv4Address):
        return None
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return IPv4Address((int(ip) >> 80) & 0xFFFFFFFF) if ip in _TO_IPV4 else None


class Destinations:
    """The rules; with ``private`` also ``http``, private addresses and all ports."""

    def __init__(self, *, private: bool) -> None:
        self.private = private

    def check(self, url: str) -> URL:
        """Return a URL that may be called; its host is checked when it is resolved.

        Raises:
            WebhookUrlRefused: it may not; ``meta.reason`` says why.
        """
        try:
            parsed = URL(url)
            host, port = parsed.host, parsed.port
        except ValueError:
            raise WebhookUrlRefused(reason="this is not a URL") from None
        if parsed.scheme not in ("http", "https") or not host:
            raise WebhookUrlRefused(reason="the URL must begin with https:// and a host")
        if parsed.scheme == "http" and not self.private:
            raise WebhookUrlRefused(reason="the URL must begin with https://")
        if parsed.user is not None or parsed.password is not None:
            raise WebhookUrlRefused(reason="the URL must not have a user name or password")
        if parsed.fragment or not url.isprintable() or " " in url:
            raise WebhookUrlRefused(reason="the URL must not have a fragment, white space or control characters")
        if not self.private and port is not None and port != HTTPS and port < FIRST_UNPRIVILEGED_PORT:
            raise WebhookUrlRefused(reason="the port must be 443, or at least 1024")
        if not self.private and not _may_be_public(host):
            raise WebhookUrlRefused(reason="the address is not public")
        return parsed

    def open_socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """Create the socket for an address that was resolved: the ``socket_factory`` of aiohttp.

        Raises:
            AddressRefused: webhooks may not be sent to the address.
        """
        family, kind, protocol, _, address = address_info
        if not self.private and not is_public(address[0]):
            raise AddressRefused
        return socket.socket(family, kind, protocol)


def _may_be_public(host: str) -> bool:
    """Return False for a host that is never public, without resolving it.

    Some forms of addresses are resolved only later: ``0x7f.1`` has another form in each system.
    """
    try:
        return is_public(host)
    except ValueError:
        name = host.rstrip(".").lower()
        return name != "localhost" and not name.endswith((".localhost", ".local", ".internal")) and "." in name
