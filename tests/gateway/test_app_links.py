from __future__ import annotations

import base64
import hashlib
import html
import re
import tomllib
from pathlib import Path

import pytest

from services.gateway import app_links
from shared.mail import app_link_token, unsubscribe_token
from shared.sealing import Sealer
from tests.gateway.conftest import GatewayStack

LINK = "beak://callback?a='\"<script>&state=s&code=authzcode_1.k"
LANGUAGES = ("en", "de", "fr", "es", "it")


@pytest.fixture
def path(stack: GatewayStack) -> str:
    return f"/open/{app_link_token(stack.services.sealer, LINK, product_name='Be<a>k {0}')}"


async def test_page_has_a_button_that_opens_the_app_and_changes_nothing(stack: GatewayStack, path: str) -> None:
    for verb in ("GET", "HEAD"):
        response = await stack.http.request(verb, path)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-robots-tag"] == "noindex"
    page = (await stack.http.get(path)).text
    [href] = re.findall(r'href="([^"]*)"', page)
    assert html.unescape(href) == LINK
    assert "Open Be&lt;a&gt;k {0}</a>" in page
    assert stack.services.received == []


async def test_page_runs_nothing_and_its_policy_allows_only_its_style(stack: GatewayStack, path: str) -> None:
    response = await stack.http.get(path)
    style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    policy = response.headers["content-security-policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "form-action 'none'" in policy
    assert not re.search(r"<script|src=|style=|http-equiv|<form", response.text)


async def test_invalid_token_gives_404(stack: GatewayStack, path: str) -> None:
    token, sealer = path.rpartition("/")[2], stack.services.sealer
    for forged in (
        token[:-1],
        token.replace(".", "..", 1),
        "javascript:alert(1)",
        "x",
        "%00",
        "k1." + "A" * 400,
        app_link_token(Sealer({"test": bytes(range(1, 33))}), LINK, product_name="Beak"),
        # Sealed with the same key for another purpose.
        unsubscribe_token(sealer, "user_1"),
        sealer.seal("gateway", LINK.encode()),
    ):
        response = await stack.http.get(f"/open/{forged}")
        assert response.status_code == 404, forged
        assert "does not work" in response.text, forged
        assert "href" not in response.text
    for other in ("/open", "/open/", f"{path}/more"):
        assert (await stack.http.get(other)).status_code == 404
    assert (await stack.http.post(path)).status_code == 405


async def test_page_has_the_language_of_the_mail(stack: GatewayStack, path: str) -> None:
    for language in LANGUAGES:
        response = await stack.http.get(f"{path}?lang={language}", headers={"accept-language": "ja"})
        assert response.headers["content-language"] == language
        assert f'<html lang="{language}">' in response.text


def test_every_language_has_every_text() -> None:
    texts = tomllib.loads((Path(app_links.__file__).parent / "templates" / "open.toml").read_text())
    assert set(texts) == set(LANGUAGES)
    for of_language in texts.values():
        assert {state: set(parts) for state, parts in of_language.items() if state != "title"} == {
            "open": {"heading", "text", "button", "note"},
            "unknown": {"heading", "text", "note"},
        }
        for part in ("heading", "button", "note"):
            assert "{product_name}" in of_language["open"][part]
