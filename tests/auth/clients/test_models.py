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
        "beak://callback",
        "com.example.app:/cb",
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
    ],
)
def test_redirect_uri_that_is_not_allowed_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRedirectUri):
        client(uri)


def test_disabled_client_is_refused() -> None:
    enabled = client("https://app.example/cb")
    enabled.must_be_enabled()
    with pytest.raises(ClientDisabled):
        replace(enabled, disabled_at=NOW).must_be_enabled()
