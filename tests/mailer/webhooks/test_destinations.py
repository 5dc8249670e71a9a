"""URLs and addresses that webhooks may be sent to."""

import socket

import pytest

from services.mailer.webhooks.destinations import AddressRefused, Destinations, is_public
from shared.messages.mailer.errors import WebhookUrlRefused

PUBLIC = ["93.184.215.14", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1"]
PUBLIC += ["2606:2800:21f:cb07:6820:80da:af6b:8b2c", "2a00:1450:400a:804::200e", "::ffff:8.8.8.8", "64:ff9b::808:808"]
PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255"),
    *("192.168.1.1", "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("192.0.0.192", "192.0.2.1", "198.51.100.7", "203.0.113.9", "198.18.0.1", "198.19.255.255", "192.88.99.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
    *("fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1"),
    *("2001::1", "2002:7f00:1::", "2002:a9fe:a9fe::", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "5f00::1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example.com",
        "https://app.example.com/webhooks?tenant=1",
        "https://app.example.com:8443/",
        "https://app.example.com:443/",
        "https://8.8.8.8/",
        "https://[2a00:1450:400a:804::200e]/",
        "https://bücher.example/",
    ],
)
def test_public_https_urls_are_allowed(url: str) -> None:
    Destinations(private=False).check(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example.com",
        "//app.example.com/",
        "https://",
        "https:///path",
        "http://app.example.com/",
        "ftp://app.example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://user:secret@app.example.com/",
        "https://user@app.example.com/",
        "https://app.example.com/#fragment",
        "https://app.example.com/a b",
        "https://app.example.com/\n",
        "https://app.example.com:22/",
        "https://app.example.com:80/",
        "https://app.example.com:99999/",
        "https://[::1",
        "https://localhost/",
        "https://localhost./",
        "https://api.localhost/",
        "https://printer.local/",
        "https://metadata.google.internal/",
        "https://intranet/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fd00:ec2::254]/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://017700000001/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(WebhookUrlRefused) as refused:
        Destinations(private=False).check(url)
    assert refused.value.meta["reason"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/", "http://localhost/", "http://[::1]:80/", "https://intranet/"]
)
def test_private_urls_are_allowed_if_the_setting_allows_them(url: str) -> None:
    Destinations(private=True).check(url)


@pytest.mark.parametrize("url", ["http://user:secret@127.0.0.1/", "ftp://127.0.0.1/", "http://127.0.0.1/#a"])
def test_the_setting_allows_no_credentials_and_schemes(url: str) -> None:
    with pytest.raises(WebhookUrlRefused):
        Destinations(private=True).check(url)


def test_a_socket_is_created_for_public_addresses_only() -> None:
    public = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("8.8.8.8", 443))
    private = (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::ffff:127.0.0.1", 443, 0, 0))
    Destinations(private=False).open_socket(public).close()
    Destinations(private=True).open_socket(private).close()
    with pytest.raises(AddressRefused):
        Destinations(private=False).open_socket(private)
