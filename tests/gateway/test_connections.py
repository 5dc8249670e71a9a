from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from services.gateway.connections import BodyBudget, ConnectionLimits, HeldBody


class Client:
    """A connection that notes whether it was closed."""

    def __init__(self) -> None:
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


def limits(total: int = 100, per_peer: int = 2, trusted: str = "10.0.0.0/8") -> ConnectionLimits:
    return ConnectionLimits(total, per_peer, (ip_network(trusted),))


SAME_PEER = [
    ("192.0.2.1", "192.0.2.1"),
    ("::ffff:192.0.2.1", "192.0.2.1"),
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),
    ("fe80::1%eth0", "fe80::2"),
    ("unix", "unix"),
]
OTHER_PEER = [
    ("192.0.2.1", "192.0.2.2"),
    ("2001:db8:1:2::1", "2001:db8:1:3::1"),
    ("10.1.1.1", "10.1.1.1"),
    ("::ffff:10.1.1.1", "::ffff:10.1.1.1"),
]


@pytest.mark.parametrize(("first", "second"), SAME_PEER)
def test_addresses_of_one_peer_share_its_limit(first: str, second: str) -> None:
    connections, clients = limits(), [Client() for _ in range(3)]
    for client, address in zip(clients, (first, first, second), strict=True):
        assert connections.add(client, address)
    assert [client.evicted for client in clients] == [True, False, False]


@pytest.mark.parametrize(("first", "second"), OTHER_PEER)
def test_other_peers_and_trusted_proxies_do_not_share_it(first: str, second: str) -> None:
    connections, clients = limits(), [Client() for _ in range(3)]
    for client, address in zip(clients, (first, first, second), strict=True):
        assert connections.add(client, address)
    assert not any(client.evicted for client in clients)


def test_idlest_is_the_one_that_received_nothing_for_the_longest_time() -> None:
    connections, (first, second, third) = limits(), (Client(), Client(), Client())
    connections.add(first, "192.0.2.1")
    connections.add(second, "192.0.2.1")
    connections.receive(first)
    assert connections.add(third, "192.0.2.1")
    assert (first.evicted, second.evicted) == (False, True)


def test_connection_with_a_request_in_progress_is_not_closed() -> None:
    connections, (first, second, third, fourth) = limits(), (Client(), Client(), Client(), Client())
    for client in (first, second):
        connections.add(client, "192.0.2.1")
        connections.work(client)
    assert not connections.add(third, "192.0.2.1")
    connections.remove(third)
    connections.rest(second)
    assert connections.add(fourth, "192.0.2.1")
    assert (first.evicted, second.evicted) == (False, True)


def test_total_closes_the_idlest_of_all_peers_but_proxies() -> None:
    connections, proxy, stranger, new = limits(total=2), Client(), Client(), Client()
    connections.add(proxy, "10.1.1.1")
    connections.add(stranger, "192.0.2.1")
    assert connections.add(new, "192.0.2.2")
    assert (proxy.evicted, stranger.evicted) == (False, True)
    connections.work(new)
    assert not connections.add(Client(), "192.0.2.3")


def test_nothing_is_kept_of_closed_connections() -> None:
    connections, clients = limits(total=10, per_peer=10), [Client() for _ in range(10)]
    for number, client in enumerate(clients):
        connections.add(client, f"192.0.2.{number % 3}")
        if number % 2:
            connections.work(client)
    for client in clients:
        connections.remove(client)
        connections.remove(client)
        connections.rest(client)
    assert len(connections) == 0
    assert not any((connections._counts, connections._idle, connections._idle_by_peer))


class Bodies:
    """A budget of 100 bytes, and the names of the refused bodies."""

    def __init__(self) -> None:
        self.budget = BodyBudget(100)
        self.refused: list[str] = []

    def new(self, name: str) -> HeldBody:
        return HeldBody(self.budget, self._refuse(name))

    def _refuse(self, name: str) -> Callable[[], None]:
        return lambda: self.refused.append(name)


def test_oldest_large_body_makes_room() -> None:
    bodies = Bodies()
    small, old, young, new = map(bodies.new, ("small", "old", "young", "new"))
    assert small.add(1)
    assert old.add(40)
    assert young.add(50)
    assert new.add(30)
    assert bodies.refused == ["old"]
    assert bodies.budget.used == 81
    assert not old.add(1)


def test_largest_body_does_not_push_out_small_ones() -> None:
    bodies = Bodies()
    small = bodies.new("small")
    small.add(10)
    assert not bodies.new("large").add(95)
    assert bodies.refused == []
    assert bodies.budget.used == 10


def test_finished_bodies_are_not_refused() -> None:
    bodies = Bodies()
    finished, new = bodies.new("finished"), bodies.new("new")
    finished.add(90)
    finished.finish()
    assert not new.add(20)
    finished.release()
    finished.release()
    assert bodies.budget.used == 0
    assert bodies.new("next").add(100)
