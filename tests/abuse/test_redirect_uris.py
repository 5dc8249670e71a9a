"""Redirect URIs: a running Nest sends codes only to https, loopback and schemes of domains."""

from __future__ import annotations

from typing import Final

import pytest

from tests.abuse.conftest import Target
from tests.stack import REDIRECT_URI, Login

DANGEROUS: Final = [
    "http://app.example/cb",
    "http://localhost@evil.example/cb",
    "https://app.example@evil.example/cb",
    "https://app.example/cb#x",
    "https://evil.example\\@app.example/cb",
    "myapp://callback",
    "javascript:/x",
    "data:text/html,x",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("uri", DANGEROUS)
async def test_no_dangerous_redirect_uri_can_be_registered(target: Target, uri: str) -> None:
    """RFC 8252 sections 7.1 and 7.3, RFC 9700 section 2.1."""
    nest = target.nest
    created = await nest.call("create_client", {"name": "Eve", "redirect_uris": [REDIRECT_URI, uri]}, **nest.internal)
    assert (created.status_code, created.json()["code"]) == (400, "invalid_redirect_uri")
    client = await nest.create_client()
    updated = await nest.call("update_client", {"id": client["id"], "redirect_uris": [uri]}, **nest.internal)
    assert (updated.status_code, updated.json()["code"]) == (400, "invalid_redirect_uri")


async def test_client_of_an_earlier_release_keeps_its_redirect_uri(target: Target, email: str) -> None:
    nest = target.nest
    client = await nest.create_client()
    target.database("auth")["clients"].update_one(
        {"_id": client["id"]}, {"$set": {"redirectUris": ["myapp://callback"]}}
    )
    login = Login(email, client_id=client["id"], redirect_uri="myapp://callback")
    assert (await nest.call("send_magic_link", login.request())).status_code == 204
    uris = ["myapp://callback", REDIRECT_URI]
    changed = await nest.call("update_client", {"id": client["id"], "redirect_uris": uris}, **nest.internal)
    assert changed.json()["redirect_uris"] == uris
