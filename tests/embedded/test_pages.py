from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from services.embedded.demo import CLIENTS
from services.embedded.mail_inbox import Inbox
from services.embedded.pages import Pages

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
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "<script>" not in page.text
    assert " style=" not in page.text


@pytest.mark.parametrize("path", ["/dev/inbox", "/dev/inbox.json", "/dev/callback", "/dev/static/pages.css"])
async def test_one_slash_at_the_end_of_a_path_is_ignored(browser: httpx.AsyncClient, path: str) -> None:
    assert (await browser.get(f"{path}/?code=c")).content == (await browser.get(f"{path}?code=c")).content
    assert (await browser.get(f"{path}/")).status_code == 200
    assert (await browser.get(f"{path}//")).status_code == 404


async def test_start_page_has_client_and_redirect_uri(browser: httpx.AsyncClient) -> None:
    page = (await browser.get("/")).text
    assert f'data-client-id="client_1" data-redirect-uri="{BASE}/dev/callback"' in page


async def test_start_page_links_to_the_accounts_and_lists_the_clients(browser: httpx.AsyncClient) -> None:
    page = (await browser.get("/")).text
    assert 'href="/accounts"' in page
    for platform, client_id in CLIENTS.items():
        assert f"<dt>{platform}</dt><dd><code>{client_id}</code></dd>" in page


async def test_all_static_files_are_served(browser: httpx.AsyncClient) -> None:
    for name in ("pages.css", "nest.svg", "api.js", "start.js", "inbox.js", "callback.js"):
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


async def test_inbox_page_escapes_mails_and_shows_only_newer_ones(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    assert "Nothing has arrived yet" in (await browser.get("/dev/inbox")).text
    mail = inbox.add_mail(
        b"Subject: <b>hi</b>\r\n\r\n<script>1</script> https://a.example/?x=1&y=2\r\n", ["a@example.com"]
    )
    page = (await browser.get("/dev/inbox")).text
    assert "&lt;b&gt;hi&lt;/b&gt;" in page
    assert "&lt;script&gt;" in page
    assert 'href="https://a.example/?x=1&amp;y=2">Open the link' in page
    newer = inbox.add_text(to="1", text="a text")
    page = (await browser.get(f"/dev/inbox?after={mail.id}")).text
    assert (f"arrival-{newer.id}" in page, f"arrival-{mail.id}" in page) == (True, False)


async def test_unsubscribe_link_is_no_button(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    inbox.add_mail(b"Subject: s\r\n\r\nhttps://a.example/unsubscribe/x\r\n", ["a@example.com"])
    assert "Open the link" not in (await browser.get("/dev/inbox")).text


async def test_inbox_json_has_its_documented_fields(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    inbox.add_mail(b"Subject: s\r\n\r\nhttps://a.example/1\r\n", ["a@example.com"])
    inbox.add_text(to="+491", text="t")
    (mail,) = (await browser.get("/dev/inbox.json", params={"to": "a@example.com"})).json()
    assert {name: mail[name] for name in ("to", "subject", "html", "links")} == {
        "to": "a@example.com",
        "subject": "s",
        "html": "",
        "links": ["https://a.example/1"],
    }
    assert {"text", "at"} <= mail.keys()
    assert len((await browser.get("/dev/inbox.json")).json()) == 2


async def test_html_of_a_mail_is_sandboxed(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    mail = inbox.add_mail(b"Content-Type: text/html\r\n\r\n<p style='x'>hi</p>", ["a@example.com"])
    page = await browser.get(f"/dev/inbox/{mail.id}")
    assert "<p style='x'>hi</p>" in page.text
    assert page.headers["content-security-policy"].startswith("sandbox allow-popups")
    assert "script" not in page.headers["content-security-policy"]
    assert (await browser.get("/dev/inbox/none")).status_code == 404
