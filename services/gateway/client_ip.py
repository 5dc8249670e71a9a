"""Client IP address: the socket's peer, or the address that trusted proxies report."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

Network = IPv4Network | IPv6Network


class ClientIp:
    """Determines the client's IP address.

    Args:
        trusted: networks of proxies whose ``x-forwarded-for`` is used. From others it is ignored: anybody can send it.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def of(self, scope: Scope) -> str | None:
        """Address of the client of a request; None if the server does not know it."""
        client = scope.get("client")
        if client is None:
            return None
        peer: str = client[0]
        return self._forwarded(peer, scope) if self._trusted else peer

    def _forwarded(self, peer: str, scope: Scope) -> str:
        """The rightmost address that is not a trusted proxy. Addresses to its left may be forged."""
        hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        nearest = _address(peer)
        if nearest is None:
            return peer
        for hop in reversed(hops.split(b",")):
            if not self._is_trusted(nearest):
                break
            address = _address(hop.decode("latin-1").strip())
            if address is None:
                break
            nearest = address
        return str(nearest)

    def _is_trusted(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
