"""Listening sockets, and the health port on them."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from typing import Any

import httpx
import pytest

from services.embedded import ports
from shared.health import HealthServer
from shared.listeners import listen


def _has_ipv6() -> bool:
    with suppress(OSError):
        listen("::1", 0).close()
        return True
    return False


LOOPBACKS = {"127.0.0.1", "::1"} if _has_ipv6() else {"127.0.0.1"}


def families(host: str) -> set[str]:
    """Loopback addresses that a listener on a host accepts."""
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        accepted = set()
        for address in ("127.0.0.1", "::1"):
            try:
                socket.create_connection((address, port), timeout=5).close()
            except OSError:
                continue
            accepted.add(address)
        return accepted


@pytest.mark.parametrize(
    ("host", "accepted"),
    [
        ("::", {"127.0.0.1", "::1"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("127.0.0.1", {"127.0.0.1"}),
        ("::1", {"::1"}),
    ],
)
def test_listener_accepts_the_families_of_its_host(host: str, accepted: set[str]) -> None:
    """RFC 3493 section 5.3: ``IPV6_V6ONLY`` is off."""
    if host == "::1" and host not in LOOPBACKS:
        pytest.skip("this machine has no IPv6")
    assert families(host) == accepted & LOOPBACKS


def test_all_addresses_are_those_of_ipv4_on_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIpv6(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *arguments, **options)

    monkeypatch.setattr(socket, "socket", WithoutIpv6)
    with listen("::", 0) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    with pytest.raises(OSError, match="not supported"):
        listen("::1", 0)


def test_port_in_use_is_an_error_on_either_family() -> None:
    for first, second in (("127.0.0.1", "::"), ("::", "127.0.0.1"), ("::", "::")):
        with listen(first, 0) as listener, pytest.raises(OSError, match="in use"):
            listen(second, listener.getsockname()[1])


async def test_health_port_is_served_on_both_families_with_and_without_a_slash() -> None:
    port = ports.any_free()
    server = HealthServer("::", port, list)
    await server.start()
    try:
        async with httpx.AsyncClient() as client:
            for address in LOOPBACKS:
                for path in ("/healthz", "/healthz/", "/metrics", "/metrics/"):
                    for verb in ("GET", "HEAD"):
                        response = await client.request(verb, ports.url(address, port) + path)
                        assert (response.status_code, bool(response.content)) == (200, verb == "GET")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b" 200 " in await reader.readline()
        writer.close()
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://127.0.0.1:8080"),
        ("::1", "http://[::1]:8080"),
        ("192.0.2.1", "http://192.0.2.1:8080"),
    ],
)
def test_url_of_a_host(host: str, url: str) -> None:
    """RFC 3986 section 3.2.2 demands brackets around IPv6 addresses."""
    assert ports.url(host, 8080) == url
