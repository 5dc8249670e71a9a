from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.networks import LOOPBACK_HOSTS, is_loopback, is_loopback_host, prefix


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("203.0.113.9", "203.0.113.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_the_prefix_of_an_address(ip: str, network: str) -> None:
    assert prefix(ip) == network


@given(st.ip_addresses())
def test_every_address_is_in_its_prefix(address: IPv4Address | IPv6Address) -> None:
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    network = ip_network(prefix(str(address)))
    assert address in network
    assert network.prefixlen == (24 if address.version == 4 else 64)


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_addresses_are_recognized(ip: str) -> None:
    assert is_loopback(ip)


@pytest.mark.parametrize("ip", ["203.0.113.9", "::2", "testclient", ""])
def test_other_addresses_are_not_loopback(ip: str) -> None:
    assert not is_loopback(ip)


@pytest.mark.parametrize(
    "host",
    [*sorted(LOOPBACK_HOSTS), "LOCALHOST", "localhost.", "app.localhost", "[::1]", "127.9.9.9", "::ffff:127.0.0.1"],
)
def test_hosts_of_this_machine_are_recognized(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "null",
        "example.com",
        "192.168.1.7",
        "0.0.0.0",
        "::",
        "[2001:db8::1]",
        "notlocalhost",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "127.0.0.1:8080",
        "user@localhost",
        "evil.example@127.0.0.1",
    ],
)
def test_other_hosts_are_not_this_machine(host: str) -> None:
    assert not is_loopback_host(host)
