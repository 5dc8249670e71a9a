"""The console behind its login, in a browser: over TLS through a proxy, as on a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.accessibility import check_page
from tests.browser.conftest import chromium, open_tab
from tests.browser.ingress import ingress
from tests.certificates import Authority
from tests.mailer.smtp_server import server_tls
from tests.stack import RunNest, Stack

HOST: Final = "nest.test"
"""Browsers make exceptions for `localhost`: it may have `Secure` cookies over plain http."""
ISSUER: Final = f"https://{HOST}"
OPERATOR: Final = "a.person.with.a.long.address@department.example.com"
SESSION: Final = "__Host-nest-console"
LOGIN: Final = "__Host-nest-console-login"


@dataclass(frozen=True)
class Site:
    """A Nest at `https://nest.test`, and at `http://nest.test` too, with a browser that resolves this name."""

    nest: Stack
    browser: Browser


@pytest.fixture(scope="module")
async def site(run_nest: RunNest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    certificate = Authority(tmp_path_factory.mktemp("certificates")).issue("nest", host=HOST)
    settings = {
        "NEST_ISSUER": ISSUER,
        "NEST_OPERATORS": f"ada:{OPERATOR}",
        "NEST_TRUSTED_PROXIES": "127.0.0.1/32",
    }
    async with (
        run_nest(settings=settings) as nest,
        ingress(nest.urls[0], server_tls(certificate.both)) as https,
        ingress(nest.urls[0]) as http,
        chromium(
            "--no-proxy-server",
            f"--host-resolver-rules=MAP {HOST}:443 127.0.0.1:{https}, MAP {HOST}:80 127.0.0.1:{http}",
            f"--ignore-certificate-errors-spki-list={certificate.key_digest}",
        ) as browser,
    ):
        yield Site(nest, browser)


@pytest.fixture
async def page(site: Site) -> AsyncIterator[Page]:
    """A tab in a new profile; JavaScript errors fail the test."""
    async with open_tab(site.browser, ISSUER) as tab:
        yield tab


async def cookies(page: Page) -> dict[str, Any]:
    """All cookies that the browser has stored, by name."""
    return {str(each.get("name")): each for each in await page.context.cookies()}


async def follow_mailed_link(site: Site, page: Page) -> Page:
    """Request a link and press it in its mail, which is a page of another site, as in a web mailer."""
    already = len(site.nest.inbox.arrivals(OPERATOR))
    await page.goto("/console")
    await page.get_by_label("E-mail address").fill(OPERATOR)
    await page.get_by_role("button", name="Send me a link").click()
    await expect(page.get_by_label("Code of six digits")).to_be_visible()
    arrival = await site.nest.mail(OPERATOR, count=already + 1)
    mail = await page.context.new_page()
    await mail.set_content(arrival.html)
    async with mail.expect_request("**/console/callback?*") as opened:
        await mail.locator("a[href*='code=']").first.click()
    assert (await (await opened.value).all_headers())["sec-fetch-site"] == "cross-site"
    await expect(mail.get_by_text("You are about to log in")).to_be_visible()
    return mail


async def log_in(site: Site, page: Page) -> Page:
    """Log in; return the tab with the console."""
    tab = await follow_mailed_link(site, page)
    await tab.get_by_role("button", name="Log in").click()
    await tab.wait_for_url(f"{ISSUER}/console")
    return tab


async def test_operator_logs_in_with_the_link_of_the_mail_and_out(site: Site, page: Page) -> None:
    tab = await follow_mailed_link(site, page)
    assert set(await cookies(tab)) == {LOGIN}
    await expect(tab.get_by_role("button", name="Log in")).to_be_focused()
    await check_page(tab, "console-press")
    await tab.get_by_role("button", name="Log in").click()
    await tab.wait_for_url(f"{ISSUER}/console")
    await expect(tab.get_by_text(OPERATOR)).to_be_visible()
    await check_page(tab, "console-of-operator")

    stored = await cookies(tab)
    assert set(stored) == {SESSION}
    session = stored[SESSION]
    # With a `Domain` attribute the name would begin with a dot.
    assert (session["domain"], session["path"]) == (HOST, "/")
    assert (session["secure"], session["httpOnly"], session["sameSite"]) == (True, True, "Strict")
    assert await tab.evaluate("document.cookie") == ""

    await tab.get_by_role("button", name="Log out").click()
    await tab.wait_for_url(f"{ISSUER}/console/login")
    assert set(await cookies(tab)) == {LOGIN}
    await tab.goto("/console")
    assert tab.url == f"{ISSUER}/console/login"


async def test_acts_need_the_token_of_their_page(site: Site, page: Page) -> None:
    tab = await log_in(site, page)

    async def register(change: str) -> None:
        await tab.goto("/console/clients")
        await tab.get_by_label("Name of the app").fill("An app of the login test")
        await tab.get_by_label("Redirect URIs").fill("http://127.0.0.1:3000/callback")
        await tab.evaluate(f"document.querySelectorAll('[name=csrf]').forEach(field => {{ {change} }})")
        await tab.get_by_role("button", name="Register the client").click()

    for change in ("field.remove()", "field.value = ''", "field.value = 'k1.' + '0'.repeat(64)"):
        await register(change)
        await expect(tab.get_by_role("alert")).to_contain_text("This form is out of date")
    await check_page(tab, "console-refused")

    await tab.goto("/console/clients")
    await expect(tab.get_by_role("link", name="An app of the login test")).to_have_count(0)
    token = await tab.locator("[name=csrf]").first.input_value()
    foreign = await page.context.new_page()
    await foreign.set_content(
        f"""<form method="post" action="{ISSUER}/console/clients"><input name="csrf" value="{token}">
        <input name="name" value="Foreign"><input name="redirect_uris" value="http://127.0.0.1/"><button>Go</button>"""
    )
    await foreign.get_by_role("button").click()
    await expect(foreign.get_by_role("alert")).to_contain_text("Another site has sent this request")

    await register("")
    await expect(tab.get_by_role("status")).to_contain_text("registered")
    await expect(tab.get_by_role("heading", level=1)).to_have_text("An app of the login test")


async def test_pages_before_the_mail_are_accessible(page: Page) -> None:
    await page.goto("/console/login")
    await check_page(page, "console-login")
    await page.get_by_label("E-mail address").fill("nobody@localhost")
    await page.get_by_role("button", name="Send me a link").click()
    await expect(page.get_by_role("alert")).to_have_text("This is no e-mail address.")
    await expect(page.get_by_label("E-mail address")).to_have_value("nobody@localhost")
    await check_page(page, "console-login-refused")
    await page.get_by_label("E-mail address").fill(f"not.{OPERATOR}")
    await page.get_by_role("button", name="Send me a link").click()
    await expect(page.get_by_label("Code of six digits")).to_have_attribute("autocomplete", "one-time-code")
    await check_page(page, "console-sent")


async def test_browser_stores_no_cookie_from_plain_http(site: Site, page: Page) -> None:
    """As behind a proxy that forgets to redirect to https."""
    response = await page.goto(f"http://{HOST}/console/login")
    assert response is not None
    assert response.url == f"http://{HOST}/console/login"
    assert (await response.header_value("set-cookie") or "").startswith(f"{LOGIN}=")
    assert await cookies(page) == {}
    # After the first visit over TLS the browser uses nothing else (RFC 6797).
    await log_in(site, page)
    await page.goto(f"http://{HOST}/console/clients")
    assert page.url == f"{ISSUER}/console/clients"
