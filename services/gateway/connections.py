"""Limits on what clients can make a gateway hold: open connections, and bytes of request bodies."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, Protocol

from prometheus_client import Counter as Metric

from services.gateway.requests import Network
from shared.networks import IPV6_PREFIX

CLOSED: Final = Metric(
    "nest_gateway_connections_closed",
    "Connections that were closed or refused, by the limit that was reached: all, or those of one peer.",
    ["limit"],
)
BODIES_REFUSED: Final = Metric(
    "nest_gateway_bodies_refused", "Requests refused with 429 because of the memory that request bodies take."
)


class Connection(Protocol):
    """An open connection."""

    def evict(self) -> None:
        """Close it at once, whatever it still has to send."""


class ConnectionLimits:
    """The open connections of a server: how many there may be, and how many of one peer.

    At a limit the idlest connection is closed in favour of a new one: that without a request in progress which has
    received nothing for the longest time. So a peer that opens many connections and leaves them idle closes its own.
    A peer is an IPv4 address, or an IPv6 network of 64 bits. Trusted proxies have the connections of many people: they
    have no limit of their own, and none of their connections is closed.

    Args:
        total: open connections.
        per_peer: open connections of one peer.
        trusted: networks of proxies.
    """

    def __init__(self, total: int, per_peer: int, trusted: Sequence[Network]) -> None:
        self._total = total
        self._per_peer = per_peer
        self._trusted = trusted
        self._peers: dict[Connection, str | None] = {}
        """The peer of every open connection; None for a trusted proxy."""
        self._counts: Counter[str] = Counter()
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        """Connections that may be closed, the idlest first."""
        self._idle_by_peer: dict[str, OrderedDict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def add(self, connection: Connection, address: str | None) -> bool:
        """Add a connection, which is idle; return False if it must be refused, because no other can be closed.

        Args:
            connection: a new one.
            address: IP address of the peer; None if it is unknown, which counts as a trusted proxy.
        """
        peer = None if address is None else self._peer(address)
        accepted = True
        if peer is not None and self._counts[peer] >= self._per_peer:
            accepted = self._evict(self._idle_by_peer.get(peer), "peer")
        if accepted and len(self._peers) >= self._total:
            accepted = self._evict(self._idle, "all")
        self._peers[connection] = peer
        if peer is not None:
            self._counts[peer] += 1
        if accepted:
            self.rest(connection)
        return accepted

    def rest(self, connection: Connection) -> None:
        """Note that a connection has no request in progress."""
        peer = self._peers.get(connection)
        if peer is not None:
            self._idle[connection] = None
            self._idle_by_peer.setdefault(peer, OrderedDict())[connection] = None

    def receive(self, connection: Connection) -> None:
        """Note that a connection has received something."""
        if connection in self._idle:
            self._idle.move_to_end(connection)
            self._idle_by_peer[self._peers[connection] or ""].move_to_end(connection)

    def work(self, connection: Connection) -> None:
        """Note that a connection has a request in progress, so that it is not closed."""
        if connection in self._idle:
            del self._idle[connection]
            peer = self._peers[connection] or ""
            of_peer = self._idle_by_peer[peer]
            del of_peer[connection]
            if not of_peer:
                del self._idle_by_peer[peer]

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection; do nothing if it was removed."""
        self.work(connection)
        peer = self._peers.pop(connection, None)
        if peer is not None:
            self._counts[peer] -= 1
            if not self._counts[peer]:
                del self._counts[peer]

    def _evict(self, idle: OrderedDict[Connection, None] | None, limit: str) -> bool:
        CLOSED.labels(limit).inc()
        if not idle:
            return False
        idlest = next(iter(idle))
        self.remove(idlest)
        idlest.evict()
        return True

    def _peer(self, text: str) -> str | None:
        try:
            address: IPv4Address | IPv6Address = ip_address(text)
        except ValueError:
            return text
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or IPv6Address(address.packed)
        if any(address in network for network in self._trusted):
            return None
        return str(address if address.version == 4 else ip_network((address.packed, IPV6_PREFIX), strict=False))  # noqa: PLR2004 -- IP's version


class BodyBudget:
    """The bytes of request bodies that a server holds, from their arrival until the response.

    At the limit the oldest of the unfinished bodies that are at least as large as the average one is refused. Clients
    finish a body within milliseconds, while an attacker needs large bodies that never end.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._unfinished: dict[HeldBody, None] = {}
        """Bodies that are still arriving, the oldest first."""
        self.used = 0

    def add(self, body: HeldBody, count: int) -> bool:
        """Count bytes of an unfinished body that have arrived; return False if that body must be refused."""
        self._unfinished[body] = None
        body.held += count
        self.used += count
        while self.used > self._limit:
            BODIES_REFUSED.inc()
            average = sum(each.held for each in self._unfinished) / len(self._unfinished)
            large = next(each for each in self._unfinished if each.held >= average)
            large.release()
            if large is body:
                return False
            large.refuse()
        return True

    def finish(self, body: HeldBody) -> None:
        """Note that a body has arrived completely."""
        self._unfinished.pop(body, None)


class HeldBody:
    """The bytes of one request's body.

    Args:
        budget: of the server.
        refuse: refuses the request.
    """

    __slots__ = ("_budget", "_released", "held", "refuse")

    def __init__(self, budget: BodyBudget, refuse: Callable[[], None]) -> None:
        self._budget = budget
        self._released = False
        self.refuse = refuse
        self.held = 0

    def add(self, count: int) -> bool:
        """Count bytes that have arrived; return False if the request must be refused."""
        return not self._released and self._budget.add(self, count)

    def finish(self) -> None:
        """Note that the body has arrived completely."""
        self._budget.finish(self)

    def release(self) -> None:
        """Note that nothing holds the body any more."""
        self.finish()
        self._budget.used -= self.held
        self.held, self._released = 0, True
