import html
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from services.embedded.demo import CLIENTS
from services.embedded.mail_inbox import Inbox
from services.embedded.pages import Pages

ROOT = Path(__file__).parents[2]
BASE = "http://127.0.0.1:8080"


async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(f"gateway: {scope['path']}")(scope, receive, send)


@pytest.fixture
async def inbox(tmp_path: Path) -> AsyncIterator[Inbox]:
    async with Inbox(tmp_path) as running:
        yield running


@pytest.fixture
async def browser(inbox: Inbox) -> AsyncIterator[httpx.AsyncClient]:
    pages = Pages(gateway, inbox=inbox, base_url=BASE, client_id="client_1", version="1.2.3")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(pages), base_url=BASE) as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/1/2021-10-06/get_user", "/.well-known/jwks.json", "/dev", "/devel/inbox", "/healthz"]
)
async def test_other_paths_reach_the_gateway(browser: httpx.AsyncClient, path: str) -> None:
    assert (await browser.post(path)).text == f"gateway: {path}"


@pytest.mark.parametrize("path", ["/", "/dev/inbox", "/dev/callback?code=c&state=s"])
async def test_pages_run_only_their_own_scripts(browser: httpx.AsyncClient, path: str) -> None:
    page = await browser.get(path)
    assert page.status_code == 200
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in page.headers["content-security-policy"]
    # No other server gets the authorization code in the callback's URL.
    assert page.headers["referrer-policy"] == ("same-origin" if path == "/dev/inbox" else "no-referrer")
    assert page.headers["cache-control"] == "no-store"
    assert "<script>" not in page.text
    assert " style=" not in page.text


@pytest.mark.parametrize("path", ["/dev/inbox", "/dev/inbox.json", "/dev/callback", "/dev/static/nest.css"])
async def test_one_slash_at_the_end_of_a_path_is_ignored(browser: httpx.AsyncClient, path: str) -> None:
    assert (await browser.get(f"{path}/?code=c")).content == (await browser.get(f"{path}?code=c")).content
    assert (await browser.get(f"{path}/")).status_code == 200
    assert (await browser.get(f"{path}//")).status_code == 404


async def test_start_page_has_client_and_redirect_uri(browser: httpx.AsyncClient) -> None:
    page = (await browser.get("/")).text
    assert f'data-client-id="client_1" data-redirect-uri="{BASE}/dev/callback"' in page


async def test_start_page_has_the_login_of_readme(browser: httpx.AsyncClient) -> None:
    page = html.unescape((await browser.get("/")).text)
    commands = page.partition('<code id="paste">')[2].partition("</code>")[0]
    readme = (ROOT / "README.md").read_text()
    assert commands.replace("client_1", "client_demo") in readme


async def test_start_page_links_to_the_accounts_and_lists_the_clients(browser: httpx.AsyncClient) -> None:
    page = (await browser.get("/")).text
    assert 'href="/accounts"' in page
    for platform, client_id in CLIENTS.items():
        assert f"<dt>{platform}</dt><dd><code>{client_id}</code></dd>" in page


async def test_all_static_files_are_served(browser: httpx.AsyncClient) -> None:
    for name in ("nest.css", "embedded.css", "nest.svg", "api.js", "copy.js", "start.js", "inbox.js", "callback.js"):
        assert (await browser.get(f"/dev/static/{name}")).status_code == 200
    assert (await browser.get("/favicon.ico")).headers["content-type"] == "image/svg+xml"
    assert (await browser.get("/dev/static/../pages.py")).status_code == 404


async def test_start_page_redirects_to_the_origin_of_the_mails_links(browser: httpx.AsyncClient) -> None:
    page = await browser.get("http://localhost:8080/")
    assert (page.status_code, page.headers["location"]) == (307, f"{BASE}/")


@pytest.mark.parametrize("host", ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "", "["])
async def test_foreign_host_names_are_refused(browser: httpx.AsyncClient, host: str) -> None:
    response = await browser.get("/dev/inbox.json", headers={"host": host})
    assert (response.status_code, response.text) == (421, f"open this page at {BASE}/")


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "192.168.1.7", "nest.localhost"])
async def test_literal_addresses_and_localhost_are_accepted(browser: httpx.AsyncClient, host: str) -> None:
    assert (await browser.get("/dev/inbox.json", headers={"host": host})).json() == []
