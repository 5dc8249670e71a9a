from __future__ import annotations

from ipaddress import ip_network

import pytest

from services.gateway.client_ip import ClientIp


def client_ip(peer: str, *forwarded: str, trusted: tuple[str, ...] = ("10.0.0.0/8", "2001:db8::/32")) -> str | None:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    resolver = ClientIp([ip_network(network) for network in trusted])
    return resolver.of({"client": (peer, 1), "headers": headers})


def test_is_the_peer_unless_it_is_a_trusted_proxy() -> None:
    assert client_ip("192.0.2.1", "198.51.100.1") == "192.0.2.1"
    assert client_ip("10.0.0.1", "198.51.100.1", trusted=()) == "10.0.0.1"


def test_is_the_rightmost_address_that_is_no_trusted_proxy() -> None:
    assert client_ip("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.9.9.9") == "198.51.100.1"
    assert client_ip("10.0.0.1", "203.0.113.9", "198.51.100.1") == "198.51.100.1"
    assert client_ip("2001:db8::1", "2001:4860::8") == "2001:4860::8"
    assert client_ip("::ffff:10.0.0.1", "198.51.100.1") == "198.51.100.1"


@pytest.mark.parametrize("forwarded", ["", " ", "unknown", "evil\x00", "198.51.100.1:80", "é", ",,,"])
def test_is_the_proxy_if_the_header_is_malformed(forwarded: str) -> None:
    assert client_ip("10.0.0.1", forwarded) == "10.0.0.1"


def test_is_the_leftmost_if_all_are_trusted_proxies() -> None:
    assert client_ip("10.0.0.1", "10.0.0.3, 10.0.0.2") == "10.0.0.3"


def test_is_none_if_the_server_does_not_know_the_peer() -> None:
    assert ClientIp().of({"client": None, "headers": []}) is None
