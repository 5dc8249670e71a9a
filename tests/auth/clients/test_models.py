from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.auth.clients.models import Client
from shared.messages.auth.errors import ClientDisabled, InvalidRedirectUri

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def client(*redirect_uris: str) -> Client:
    return Client.register("An app", redirect_uris, id="client_one", at=NOW)


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example",
        "https://app.example/cb?a=b",
        "http://localhost:3000/cb",
        "http://127.0.0.1:8080/dev/callback",
        "http://localhost/",
        "http://[::1]:3000/cb",
        "https://127.0.0.1/cb",
        "https://[2001:db8::1]:8443/cb",
        "HTTPS://App.Example/cb",
        "com.example.app:/cb",
        "com.example.app://callback",
        "app.getbeak.beak-2:/cb?a=b",
    ],
)
def test_client_redirects_to_its_own_uris(uri: str) -> None:
    client(uri).must_redirect_to(uri)


@pytest.mark.parametrize(
    "uri",
    ["https://app.example/cb/", "https://app.example/cb?", "HTTPS://app.example/cb", "https://app.example/cb#x", ""],
)
def test_redirect_uri_is_matched_character_by_character(uri: str) -> None:
    with pytest.raises(InvalidRedirectUri):
        client("https://app.example/cb").must_redirect_to(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "app.example",
        "//app.example/cb",
        "/cb",
        "https:",
        "https:///cb",
        "https://[::1/cb",
        "https://app.example/a b",
        "https://app.example/\ncb",
        "https://app.example/ü",
        "https://app.example/cb#",
        "https://app.example/cb#fragment",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        # Readable on the network.
        "http://app.example/cb",
        "http://app.localhost/cb",
        "http://192.168.0.2/cb",
        "http://127.0.0.2/cb",
        "http://127.1/cb",
        "http://2130706433/cb",
        "http://0.0.0.0/cb",
        "http://[::ffff:127.0.0.1]/cb",
        "http://localhost.example/cb",
        "http://localhost./cb",
        "http://127.0.0.1.example/cb",
        "ftp://app.example/cb",
        "ws://app.example/cb",
        # User names and passwords; the host is behind the last @.
        "https://app.example@evil.example/cb",
        "https://nest:hunter2@app.example/cb",
        "https://@app.example/cb",
        "http://localhost@evil.example/cb",
        "http://127.0.0.1:80@evil.example/cb",
        "com.example.app://nest@callback",
        # Read differently by browsers.
        "https:/app.example/cb",
        "https://evil.example\\@app.example/cb",
        "https://app.example\\.evil.example/cb",
        "https://app.example:port/cb",
        "https://app.example:99999/cb",
        "https://app%2eexample/cb",
        "https://:443/cb",
        # Schemes that any app may claim, and those that browsers and systems act upon.
        "beak://callback",
        "myapp:/cb",
        "com.example.app:cb",
        "com.example.app:",
        ".example:/cb",
        "com..app:/cb",
        "com.example.app:/cb#x",
        "intent:/cb",
        "blob:https://app.example/cb",
        "vbscript:x",
        "about:blank",
        "view-source:https://app.example/",
        "mailto:/ada@app.example",
        "tel:/+41790000000",
        "chrome-extension://abcdef/cb",
        "urn:ietf:wg:oauth:2.0:oob",
    ],
)
def test_redirect_uri_that_is_not_allowed_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRedirectUri):
        client(uri)


def test_client_keeps_redirect_uris_of_earlier_rules() -> None:
    stored = replace(client("https://app.example/cb"), redirect_uris=("beak://callback", "http://app.example/cb"))
    stored.must_redirect_to("beak://callback")
    changed = stored.change(
        name=None, redirect_uris=("beak://callback", "https://app.example/new"), disabled=None, at=NOW
    )
    changed.must_redirect_to("beak://callback")
    with pytest.raises(InvalidRedirectUri):
        changed.change(name=None, redirect_uris=("http://app.example/cb",), disabled=None, at=NOW)


def test_disabled_client_is_refused() -> None:
    enabled = client("https://app.example/cb")
    enabled.must_be_enabled()
    with pytest.raises(ClientDisabled):
        replace(enabled, disabled_at=NOW).must_be_enabled()


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("https://app.example/paid", True),
        ("https://app.example/paid?session={CHECKOUT_SESSION_ID}", True),
        ("https://app.example/cb?a=b&session_id={CHECKOUT_SESSION_ID}", True),
        ("https://app.example/cb?session_id={CHECKOUT_SESSION_ID}&a=b", True),
        ("http://127.0.0.1:8080/paid?id={CHECKOUT_SESSION_ID}", True),
        ("https://app.example/", False),
        ("https://app.example/paid/", False),
        ("https://app.example/paid?session=1", False),
        ("https://app.example/paid#{CHECKOUT_SESSION_ID}", False),
        ("https://app.example/{CHECKOUT_SESSION_ID}", False),
        ("https://app.example/paid?a={CHECKOUT_SESSION_ID}&b={CHECKOUT_SESSION_ID}", False),
        ("https://app.example/paid?a=x{CHECKOUT_SESSION_ID}", False),
        ("https://evil.example/paid?session={CHECKOUT_SESSION_ID}", False),
        ("http://127.0.0.1:8081/paid", False),
    ],
)
def test_checkout_returns_to_registered_uris_alone(uri: str, *, allowed: bool) -> None:
    registered = client("https://app.example/paid", "https://app.example/cb?a=b", "http://127.0.0.1:8080/paid")
    if allowed:
        registered.must_return_to(uri)
    else:
        with pytest.raises(InvalidRedirectUri):
            registered.must_return_to(uri)
