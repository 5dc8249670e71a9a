"""The page in front of the magic links of clients with ``press_to_redeem``."""

from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from services.gateway import app_links
from shared.mail import PressLink, app_link_token, press_link_token, unsubscribe_token
from shared.sealing import Sealer
from tests.gateway.conftest import GatewayStack
from tests.gateway.test_app_links import LANGUAGES

CODE: Final = "authzcode_1." + "ab" * 32
LINK: Final = PressLink(
    link=f"https://app.example:8443/cb?a='x'&state=s%20t&code={CODE}",
    product_name="Be<a>k {0}",
    accent="#2f57d6",
    on_accent="#ffffff",
    background="#f3f4f6",
    logo_url="https://cdn.example/logo.png?a=1&b=2",
)


def path_of(stack: GatewayStack, **changed: str | None) -> str:
    return f"/continue/{press_link_token(stack.services.sealer, replace(LINK, **changed))}"  # type: ignore[arg-type]


async def test_scanners_get_a_page_without_the_link(stack: GatewayStack) -> None:
    for verb in ("GET", "HEAD"):
        response = await stack.http.request(verb, path_of(stack))
        assert response.status_code == 200
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-robots-tag"] == "noindex"
        assert "location" not in response.headers
        assert CODE not in response.text
        assert "href" not in response.text
    page = (await stack.http.get(path_of(stack))).text
    assert page.count("<form") == page.count("<button") == 1
    assert "Sign in to Be&lt;a&gt;k {0}</h1>" in page
    assert '<img src="https://cdn.example/logo.png?a=1&amp;b=2" height="32" alt="Be&lt;a&gt;k {0}"' in page
    assert "background: #2f57d6; color: #ffffff" in page
    assert stack.services.received == []


@pytest.mark.parametrize("site", [None, "same-origin", "none"])
async def test_button_leads_on_to_the_app_each_time(stack: GatewayStack, site: str | None) -> None:
    headers = {} if site is None else {"sec-fetch-site": site}
    for _ in range(2):
        response = await stack.http.post(path_of(stack), headers=headers, follow_redirects=False)
        assert (response.status_code, response.headers["location"]) == (303, LINK.link)
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "unknown"])
async def test_form_of_another_site_only_shows_the_page(stack: GatewayStack, site: str) -> None:
    response = await stack.http.post(path_of(stack), headers={"sec-fetch-site": site})
    assert response.status_code == 200
    assert "location" not in response.headers
    assert CODE not in response.text


# https://www.w3.org/TR/CSP3/#framework-directive-source-list: hosts have no IPv6 addresses.
@pytest.mark.parametrize(
    ("link", "form_action"),
    [
        ("https://app.example:8443/cb?code=1", "https://app.example:8443"),
        ("https://app.example/cb?code=1", "https://app.example"),
        ("http://127.0.0.1:8080/cb?code=1", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/cb?code=1", "http:"),
        ("https://app.example;script-src/cb?code=1", "https:"),
    ],
)
async def test_policy_allows_only_the_style_the_logo_and_the_app(
    stack: GatewayStack, link: str, form_action: str
) -> None:
    response = await stack.http.get(path_of(stack, link=link))
    style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert response.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'self' {form_action};"
        " frame-ancestors 'none'; img-src https://cdn.example"
    )
    assert not re.search(r"<script|style=|http-equiv", response.text)


@pytest.mark.parametrize("logo_url", [None, "https://cdn.example;script-src/logo.png", "https://ä.example/logo.png"])
async def test_page_without_a_usable_logo_loads_nothing(stack: GatewayStack, logo_url: str | None) -> None:
    response = await stack.http.get(path_of(stack, logo_url=logo_url))
    assert response.status_code == 200
    assert "<img" not in response.text
    assert "img-src" not in response.headers["content-security-policy"]


async def test_non_ascii_link_is_encoded(stack: GatewayStack) -> None:
    response = await stack.http.post(path_of(stack, link="https://app.example/ü\r\nx: y?code=1"))
    assert response.headers["location"] == "https://app.example/%C3%BC%0D%0Ax:%20y?code=1"


@pytest.mark.parametrize("verb", ["GET", "POST"])
async def test_invalid_token_gives_404(stack: GatewayStack, verb: str) -> None:
    token, sealer = path_of(stack).rpartition("/")[2], stack.services.sealer
    for forged in (
        token[:-1],
        token.replace(".", "..", 1),
        "javascript:alert(1)",
        "%00",
        "k1." + "A" * 400,
        press_link_token(Sealer({"test": bytes(range(1, 33))}), LINK),
        # Sealed with the same key for another purpose.
        app_link_token(sealer, LINK.link, product_name="Beak"),
        unsubscribe_token(sealer, "user_1"),
    ):
        response = await stack.http.request(verb, f"/continue/{forged}")
        assert response.status_code == 404, forged
        assert "does not work" in response.text, forged
        assert "<form" not in response.text


async def test_page_has_the_language_of_the_mail(stack: GatewayStack) -> None:
    for language in LANGUAGES:
        response = await stack.http.get(f"{path_of(stack)}?lang={language}", headers={"accept-language": "ja"})
        assert response.headers["content-language"] == language
        assert f'<html lang="{language}">' in response.text


def test_every_language_has_every_text() -> None:
    texts = tomllib.loads((Path(app_links.__file__).parent / "templates" / "continue.toml").read_text())
    assert set(texts) == set(LANGUAGES)
    for of_language in texts.values():
        assert {state: set(parts) for state, parts in of_language.items() if state != "title"} == {
            "press": {"heading", "text", "button", "note"},
            "unknown": {"heading", "text", "note"},
        }
        assert "{product_name}" in of_language["press"]["heading"]
