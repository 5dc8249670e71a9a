"""Requests for pages without login: which hosts and origins may send them."""

import pytest

from shared.pages.request_checks import is_rebinding_safe, is_same_origin


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LOCALHOST:8080",
        "app.localhost:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "192.168.1.7:8080",
        "[::1]",
        "[::1]:8080",
        "[::ffff:127.0.0.1]:8080",
        "[2001:DB8::1]:8080",
    ],
)
def test_literal_addresses_and_localhost_are_safe_from_rebinding(host: str) -> None:
    assert is_rebinding_safe(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":8080",
        "evil.example",
        "localhost.evil.example:8080",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "notlocalhost",
        "localhost-evil",
        "localhost.",
        "localhost.:8080",
        "127.0.0.1.",
        "127.1",
        "0x7f000001",
        "2130706433",
        "::1",
        "[::1",
        "[",
        "[::1].evil.example",
        "[evil.example]",
        "[127.0.0.1]@evil.example",
        "evil.example@127.0.0.1",
        "user:word@localhost",
        "127.0.0.1/evil.example",
        "evil.example#.localhost",
        "localhost\n",
        "localhost, evil.example",
        "null",
    ],
)
def test_other_hosts_may_be_rebound(host: str) -> None:
    assert not is_rebinding_safe(host)


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:8080"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": ""}, False),
        ({"origin": "http://127.0.0.1:8080"}, True),
        ({"origin": "http://[::1]:8080", "host": "[::1]:8080"}, True),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "https://127.0.0.1:8080"}, False),
        ({"origin": "http://127.0.0.1"}, False),
        ({"origin": "http://127.0.0.1:3000"}, False),
        ({"origin": "http://localhost:8080"}, False),
        ({"origin": "http://127.0.0.1:8080.evil.example"}, False),
        ({"origin": "http://evil.example@127.0.0.1:8080"}, False),
        ({"origin": "http://127.0.0.1:8080@evil.example"}, False),
        ({"origin": "http://127.0.0.1:8080/"}, False),
    ],
)
def test_requests_of_other_origins_are_recognized(headers: dict[str, str], same: bool) -> None:  # noqa: FBT001
    assert is_same_origin({"host": "127.0.0.1:8080", **headers}) is same
