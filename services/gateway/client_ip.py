"""Where does a request come from? The socket's other end, or whom a trusted proxy names."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

Network = IPv4Network | IPv6Network


class ClientIp:
    """Tells the client's address.

    Args:
        trusted: networks of proxies whose ``x-forwarded-for`` is believed; anybody can write that header.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted)

    def of(self, scope: Scope) -> str | None:
        """The address as text; None when the server does not know it."""
        client = scope.get("client")
        if client is None:
            return None
        peer: str = client[0]
        return self._named_by_proxies(peer, scope) if self._trusted else peer

    def _named_by_proxies(self, peer: str, scope: Scope) -> str:
        """The right-most address that is not a trusted proxy's: what stands left of it may be invented."""
        hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        nearest = _address(peer)
        if nearest is None:
            return peer
        for hop in reversed(hops.split(b",")):
            if not self._trusts(nearest):
                break
            named = _address(hop.decode("latin-1").strip())
            if named is None:
                break
            nearest = named
        return str(nearest)

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
