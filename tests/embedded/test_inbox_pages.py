"""The inbox over HTTP: its page, its JSON and its events."""

from __future__ import annotations

import asyncio
import json
import smtplib
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from services.embedded import arrivals, inbox_pages
from services.embedded.arrivals import Attachment, framed, read_mail, with_images
from services.embedded.mail_inbox import Inbox
from services.embedded.pages import Pages
from services.gateway.connections import BodyBudget, ConnectionLimits
from services.gateway.server import Server
from tests.stack import eventually

BASE = "http://127.0.0.1:8080"
LIST = "/dev/inbox.json"
FIELDS = {"id", "kind", "to", "sender", "subject", "text", "html", "links", "at", "read", "size", "attachments"}


def mail(subject: str = "s", to: str = "a@example.com", content: str = "https://a.example/1") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Demo <hello@demo.example>", to, subject
    message.set_content(content)
    return message


@pytest.fixture
async def inbox(tmp_path: Path) -> AsyncIterator[Inbox]:
    async with Inbox(tmp_path) as running:
        yield running


@pytest.fixture
def pages(inbox: Inbox) -> Pages:
    return Pages(Starlette(), inbox=inbox, base_url=BASE, client_id="client_1", version="1.2.3")


@pytest.fixture
async def browser(pages: Pages) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(pages), base_url=BASE) as client:
        yield client


def add(inbox: Inbox, *subjects: str, to: str = "a@example.com") -> list[str]:
    return [inbox.add_mail(bytes(mail(subject, to)), [to]).id for subject in subjects]


async def subjects(browser: httpx.AsyncClient, **query: Any) -> list[str]:
    response = await browser.get(LIST, params=query)
    assert response.status_code == 200, response.text
    return [each["subject"] for each in response.json()]


async def test_inbox_json_has_its_documented_fields(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    message = mail()
    message.add_attachment(b"ABC", maintype="application", subtype="pdf", filename="a.pdf")
    inbox.add_mail(bytes(message), ["a@example.com"])
    inbox.add_text(to="+491", text="t")
    (found,) = (await browser.get(LIST, params={"to": "A@example.com"})).json()
    assert found.keys() == FIELDS
    assert {name: found[name] for name in ("to", "subject", "html", "links", "read")} == {
        "to": "a@example.com",
        "subject": "s",
        "html": "",
        "links": ["https://a.example/1"],
        "read": False,
    }
    assert found["attachments"] == [{"name": "a.pdf", "type": "application/pdf", "size": 3, "content_id": ""}]
    assert len((await browser.get(LIST)).json()) == 2
    one = (await browser.get(f"/dev/inbox/{found['id']}.json")).json()
    assert one.items() > found.items()
    assert {"name": "Subject", "value": "s"} in one["headers"]


async def test_every_documented_parameter_and_field_is_on_the_page(browser: httpx.AsyncClient) -> None:
    page = (await browser.get("/dev/inbox")).text
    text = (Path(__file__).parents[2] / "docs" / "inbox.md").read_text()
    for name in ("to", "wait", "after", "kind", "search", "limit"):
        assert f"<code>{name}</code>" in page
        assert f"`{name}`" in text
    for name in FIELDS:
        assert f"<code>{name}</code>" in page
        assert f"`{name}`" in text
    for field in fields(Attachment):
        assert f"`{field.name}`" in text


async def test_list_is_filtered_and_newest_first(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    first, second = add(inbox, "first", "second")
    add(inbox, "third", to="b@example.com")
    inbox.add_text(to="+491", text="code 1")
    assert await subjects(browser) == ["", "third", "second", "first"]
    assert await subjects(browser, limit=2) == ["", "third"]
    assert await subjects(browser, kind="mail", limit=1) == ["third"]
    assert await subjects(browser, kind="text") == [""]
    assert await subjects(browser, search="third b@example") == ["third"]
    assert await subjects(browser, after=first, to="a@example.com") == ["second"]
    assert await subjects(browser, after=second, kind="mail") == ["third"]
    assert await subjects(browser, to="", kind="", search="", after="", wait="", limit="") == [
        "",
        "third",
        "second",
        "first",
    ]
    # A plus that a shell user did not escape.
    assert len((await browser.get(f"{LIST}?to=+491")).json()) == 1
    await browser.delete(f"/dev/inbox/{second}")
    assert await subjects(browser, after=second, kind="mail") == ["third"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"wait": "soon"}, 400),
        ({"wait": "-1"}, 400),
        ({"wait": "nan"}, 400),
        ({"wait": "inf"}, 400),
        ({"kind": "fax"}, 400),
        ({"limit": "0"}, 400),
        ({"limit": "-1"}, 400),
        ({"limit": "9" * 5_000}, 400),
        ({"search": "a" * 201}, 400),
        ({"to": "a" * 1_001}, 400),
        ({"after": "unknown"}, 404),
        ({"after": "unknown", "wait": "5"}, 404),
    ],
)
async def test_invalid_parameters_are_refused(browser: httpx.AsyncClient, query: dict[str, str], status: int) -> None:
    response = await browser.get(LIST, params=query)
    assert response.status_code == status
    assert response.json()["code"] == ("invalid_query" if status == 400 else "arrival_not_found")
    assert response.json()["message"].endswith(".")


async def test_wait_returns_with_the_first_match(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    began = time.monotonic()
    waiting = asyncio.create_task(subjects(browser, to="a@example.com", search="wanted", wait=30))
    await asyncio.sleep(0)
    add(inbox, "another")
    add(inbox, "wanted", to="b@example.com")
    add(inbox, "wanted")
    assert await waiting == ["wanted"]
    assert await subjects(browser, to="a@example.com", wait=30) == ["wanted", "another"]
    assert time.monotonic() - began < 10


async def test_wait_without_a_match_ends_in_time(
    browser: httpx.AsyncClient, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(inbox, "old")
    assert await subjects(browser, search="new", wait=0.02) == []
    monkeypatch.setattr(inbox_pages, "MAX_WAIT_SECONDS", 0.02)
    assert await subjects(browser, search="new", wait=100_000) == []


async def test_waiting_requests_are_limited(
    browser: httpx.AsyncClient, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_pages, "MAX_LISTENERS", 1)
    began, wait_for = asyncio.Event(), inbox.wait_for

    async def noted(seconds: float, **filters: Any) -> Any:
        began.set()
        return await wait_for(seconds, **filters)

    monkeypatch.setattr(inbox, "wait_for", noted)
    waiting = asyncio.create_task(subjects(browser, wait=30))
    await began.wait()
    second = await browser.get(LIST, params={"wait": 1})
    assert (second.status_code, second.json()["code"]) == (503, "too_many_listeners")
    add(inbox, "first")
    assert await waiting == ["first"]
    assert await subjects(browser, wait=1) == ["first"]


async def test_one_and_all_are_deleted(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    first, *_ = add(inbox, "first", "second", "third")
    add(inbox, "fourth", to="b@example.com")
    assert (await browser.delete(f"/dev/inbox/{first}")).status_code == 204
    assert (await browser.delete(f"/dev/inbox/{first}")).status_code == 404
    assert (await browser.delete(LIST, params={"to": "b@example.com"})).json() == {"deleted": 1}
    assert await subjects(browser) == ["third", "second"]
    assert (await browser.delete(LIST)).json() == {"deleted": 2}
    assert (await browser.delete(LIST)).json() == {"deleted": 0}


async def test_page_shows_the_list_and_marks_the_chosen_mail_as_read(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    assert "Nothing has arrived yet" in (await browser.get("/dev/inbox")).text
    first, second = add(inbox, "<b>first</b>", "second")
    page = (await browser.get("/dev/inbox")).text
    assert "&lt;b&gt;first&lt;/b&gt;" in page
    assert "<b>first</b>" not in page
    assert "2 unread" in page
    page = (await browser.get("/dev/inbox", params={"mail": first})).text
    assert "1 unread" in page
    assert f'id="arrival-{first}" data-swap aria-current="true"' in page
    assert "Nothing matches" in (await browser.get("/dev/inbox", params={"search": "nowhere"})).text
    assert [each["read"] for each in (await browser.get(LIST)).json()] == [False, True]
    await browser.delete(f"/dev/inbox/{second}")
    assert "This mail is gone" in (await browser.get("/dev/inbox", params={"mail": second})).text


async def test_tabs_show_text_source_headers_links_and_attachments(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    message = mail(content="Hi <you>\nhttps://a.example/?x=1&y=2 javascript://%0aalert(1)\n")
    message.add_alternative(
        "<p>Hi <a href='myapp:open'>app</a> <a href='javascript:alert(1)'>x</a></p>", subtype="html"
    )
    message.add_attachment(b"<script>", maintype="text", subtype="html", filename="ä.html")
    arrival = inbox.add_mail(bytes(message), ["a@example.com"])

    async def tab(name: str) -> str:
        return (await browser.get("/dev/inbox", params={"mail": arrival.id, "tab": name})).text

    assert f'<iframe src="/dev/inbox/{arrival.id}"' in await tab("html")
    assert "Hi &lt;you&gt;" in await tab("text")
    assert "MIME-Version: 1.0" in await tab("source")
    assert '<td class="mono">Demo &lt;hello@demo.example&gt;</td>' in await tab("headers")
    links = await tab("links")
    assert '<a href="https://a.example/?x=1&amp;y=2" target="_blank" rel="noopener noreferrer">' in links
    assert '<a href="myapp:open">' in links
    assert "ä.html" in await tab("attachments")
    for name in ("html", "text", "links", "attachments", "none"):
        assert 'href="javascript' not in await tab(name)
    source = await browser.get(f"/dev/inbox/{arrival.id}/source")
    assert (source.content, source.headers["content-type"]) == (bytes(message), "text/plain; charset=utf-8")
    file = await browser.get(f"/dev/inbox/{arrival.id}/attachments/0")
    assert (file.content, file.headers["content-type"]) == (b"<script>", "application/octet-stream")
    assert file.headers["content-disposition"] == "attachment; filename*=utf-8''%C3%A4.html"
    assert file.headers["content-security-policy"].startswith("sandbox")
    assert (await browser.get(f"/dev/inbox/{arrival.id}/attachments/1")).status_code == 404


async def test_file_name_of_a_download_has_no_folders(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    message = mail()
    message.add_attachment(b"x", maintype="text", subtype="x", filename="../a\\b\x00.sh")
    arrival = inbox.add_mail(bytes(message), ["a@example.com"])
    file = await browser.get(f"/dev/inbox/{arrival.id}/attachments/0")
    assert file.headers["content-disposition"] == "attachment; filename*=utf-8''.._a_b_.sh"


async def test_texts_are_shown_as_texts(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    text = inbox.add_text(to="+4915112345678", text="123456 is your code.")
    page = (await browser.get("/dev/inbox", params={"mail": text.id})).text
    assert '<div class="body bubble">123456 is your code.</div>' in page
    assert "Text to +4915112345678" in page
    assert "Headers" not in page
    assert (await browser.get(f"/dev/inbox/{text.id}/source")).status_code == 404


async def test_unsubscribe_link_is_no_button(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    arrival = inbox.add_mail(bytes(mail(content="https://a.example/unsubscribe/x")), ["a@example.com"])
    assert "Open the link" not in (await browser.get("/dev/inbox", params={"mail": arrival.id})).text


async def test_html_of_a_mail_is_sandboxed(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    arrival = inbox.add_mail(b"Content-Type: text/html\r\n\r\n<p style='x'>hi</p>", ["a@example.com"])
    page = await browser.get(f"/dev/inbox/{arrival.id}")
    assert "<p style='x'>hi</p>" in page.text
    assert page.headers["content-security-policy"].startswith("sandbox allow-popups")
    assert "script" not in page.headers["content-security-policy"]
    assert (await browser.get("/dev/inbox/none")).status_code == 404


IMAGE = b"\x89PNG\r\n\x1a\n"
DATA_URL = f"data:image/png;base64,{b64encode(IMAGE).decode()}"


def illustrated(html: str, subtype: str = "png", content_id: str = "<logo@a.example>") -> EmailMessage:
    """A mail with an image inside of its HTML, as clients for mails write it."""
    message = mail()
    message.add_alternative(html, subtype="html")
    part: Any = message.get_body(("html",))
    part.add_related(IMAGE, "image", subtype, cid=content_id)
    return message


async def test_images_of_a_mail_are_embedded_in_its_html(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    with_image = illustrated('<a href="javascript:1">x</a><img src="cid:logo@a.example"><img src="cid:other">')
    await asyncio.to_thread(send, inbox.smtp_port, with_image)
    add(inbox, "without one")
    found = (await browser.get(LIST)).json()[1]
    assert 'src="cid:logo@a.example"' in found["html"]
    attachment = {"name": "attachment-1", "type": "image/png", "size": len(IMAGE), "content_id": "logo@a.example"}
    assert found["attachments"] == [attachment]
    page = await browser.get(f"/dev/inbox/{found['id']}")
    assert f'<a data-href="javascript:1">x</a><img src="{DATA_URL}"><img src="cid:other">' in page.text
    # Everything that the frame may load is in its document.
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; " in page.headers["content-security-policy"]
    listed = await browser.get("/dev/inbox", params={"mail": found["id"], "tab": "attachments"})
    assert "cid:logo@a.example" in listed.text
    assert (await browser.get(f"/dev/inbox/{found['id']}/attachments/0")).content == IMAGE


def send(smtp_port: int, message: EmailMessage) -> None:
    with smtplib.SMTP("127.0.0.1", smtp_port) as server:
        server.send_message(message)


@pytest.mark.parametrize(
    "html",
    [
        '<img src="{}">',
        "<img SRC = ' {}'>",
        "<img src={} alt=logo>",
        "<td background={}>",
        "<style>td {{ background: url({}) }}</style>",
        "<td style='background: url( \"{}\" )'>",
        '<td style="background: url(&quot;{}&quot;)">',
        '<td style="background: url(&#x27;{}&#x27;)">',
    ],
)
@pytest.mark.parametrize("url", ["cid:a+b@a.example", "CID:a%2Bb%40a.example", "cid:a&#43;b&#x40;a.example"])
def test_images_are_embedded_however_the_html_refers_to_them(html: str, url: str) -> None:
    message = read_mail(bytes(illustrated("", content_id="<a+b@a.example>")))
    assert with_images(html.format(url), message) == html.format(DATA_URL)


@pytest.mark.parametrize(
    ("subtype", "html"),
    [
        ("svg+xml", "<img src='cid:logo@a.example'>"),
        ("png", "<img src='cid:LOGO@a.example'>"),
        ("png", "<img src='https://a.example/cid:logo@a.example'>"),
        ("png", "<a href='cid:logo@a.example'>cid:logo@a.example</a>"),
    ],
)
def test_other_types_parts_and_links_are_not_embedded(subtype: str, html: str) -> None:
    assert with_images(html, read_mail(bytes(illustrated("", subtype)))) == html


def test_a_content_id_cannot_leave_its_place_in_the_html() -> None:
    url = "cid:x%22%3E%3Cscript%3E"
    embedded = with_images(f'<img src="{url}">', read_mail(bytes(illustrated("", content_id='<x"><script>>'))))
    assert embedded == f'<img src="{DATA_URL}">'


def test_embedded_images_have_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MAX_IMAGES", 2 * len(DATA_URL) + 1)
    html = "<img src=cid:logo@a.example>" * 3
    shown = with_images(html, read_mail(bytes(illustrated(""))))
    assert (shown.count(DATA_URL), shown.count("cid:")) == (2, 1)


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        ("<p>x</p>", '<base target="_blank"><p>x</p>'),
        ("<!doctype html><head lang='en'><p>", "<!doctype html><head lang='en'><base target=\"_blank\"><p>"),
        (
            "<a class=b HREF = 'java&#10;Script:x'>",
            "<base target=\"_blank\"><a class=b data-href= 'java&#10;Script:x'>",
        ),
        ("<a href=data:text/html,x>", '<base target="_blank"><a data-href=data:text/html,x>'),
        ("<a href='app:/x'>", "<base target=\"_blank\"><a href='app:/x'>"),
    ],
)
def test_links_of_a_framed_mail_open_tabs_and_run_no_script(html: str, shown: str) -> None:
    assert framed(html) == shown


async def test_only_the_newest_are_on_the_page_until_more_are_asked_for(
    browser: httpx.AsyncClient, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_pages, "SHOWN", 2)
    add(inbox, *"abc")
    assert (await browser.get("/dev/inbox")).text.count('id="arrival-') == 2
    page = (await browser.get("/dev/inbox")).text
    assert "Show more of 3" in page
    assert (await browser.get("/dev/inbox", params={"shown": 4})).text.count('id="arrival-') == 3


async def test_form_deletes_one_or_what_the_list_shows(browser: httpx.AsyncClient, inbox: Inbox) -> None:
    first, *_ = add(inbox, "first", "second", "third")
    response = await browser.post(f"/dev/inbox/delete?search=s&mail={first}")
    assert (response.status_code, response.headers["location"]) == (303, "/dev/inbox?search=s")
    assert (await browser.post("/dev/inbox/delete?search=third")).headers["location"] == "/dev/inbox"
    assert await subjects(browser) == ["second"]
    await browser.post("/dev/inbox/delete")
    assert await subjects(browser) == []


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": BASE}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:3000"}, False),
        ({"origin": "http://127.0.0.1:3000"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
    ],
)
async def test_pages_of_other_origins_change_nothing(
    browser: httpx.AsyncClient, inbox: Inbox, headers: dict[str, str], *, allowed: bool
) -> None:
    (arrival_id,) = add(inbox, "first")
    for method, path in (
        ("POST", f"/dev/inbox/delete?mail={arrival_id}"),
        ("DELETE", LIST),
        ("DELETE", f"/dev/inbox/{arrival_id}"),
    ):
        response = await browser.request(method, path, headers=headers)
        assert (response.status_code == 403) is not allowed
    assert (inbox.find(arrival_id) is None) is allowed


async def test_a_page_of_another_origin_may_link_to_the_inbox_but_not_read_it(browser: httpx.AsyncClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await browser.get("/dev/inbox", headers=link)).status_code == 200
    script = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    for path in ("/dev/inbox.json?wait=60", "/dev/inbox/events"):
        assert (await browser.get(path, headers=script)).status_code == 403


@asynccontextmanager
async def served(pages: Pages) -> AsyncIterator[httpx.AsyncClient]:
    """The pages behind a real server, because the transport for tests has no streams."""
    limits, bodies = ConnectionLimits(100, 100, ()), BodyBudget(1_000_000)
    server = Server(pages, host="127.0.0.1", port=0, connections=limits, bodies=bodies, drain_seconds=2)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
            yield client
    finally:
        await server.stop()


async def events(lines: AsyncIterator[str], count: int) -> list[dict[str, str]]:
    """Parse server-sent events as in the HTML standard, section 9.2.6, without those that have no data."""
    found: list[dict[str, str]] = []
    event: dict[str, str] = {}
    async with asyncio.timeout(10):
        async for line in lines:
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
                continue
            if "data" in event:
                found.append(event)
            event = {}
            if len(found) == count:
                break
    return found


async def test_events_report_arrivals_and_continue_after_a_lost_connection(pages: Pages, inbox: Inbox) -> None:
    async with served(pages) as client:
        async with client.stream("GET", "/dev/inbox/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            first, second = add(inbox, "first", "second")
            known, _ = await events(stream.aiter_lines(), 2)
        assert (known["event"], json.loads(known["data"])["id"]) == ("arrived", first)
        inbox.delete([first])
        async with client.stream("GET", "/dev/inbox/events", headers={"last-event-id": known["id"]}) as stream:
            missed = await events(stream.aiter_lines(), 2)
        assert [(each["event"], json.loads(each["data"])) for each in missed] == [
            (
                "arrived",
                {"id": second, "kind": "mail", "to": "a@example.com", "sender": "Demo <hello@demo.example>"}
                | {"subject": "second", "at": inbox.arrivals()[0].at},
            ),
            ("deleted", {"ids": [first]}),
        ]
        async with client.stream("GET", "/dev/inbox/events?last_event_id=before-1") as stream:
            (reset,) = await events(stream.aiter_lines(), 1)
        assert (reset["event"], reset["id"], reset["data"]) == ("reset", inbox.last_change, "{}")


async def test_listeners_are_limited_and_their_places_become_free(
    pages: Pages, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_pages, "MAX_LISTENERS", 1)
    async with served(pages) as client:
        async with client.stream("GET", "/dev/inbox/events") as stream:
            add(inbox, "first")
            await events(stream.aiter_lines(), 1)
            assert (await client.get("/dev/inbox/events")).status_code == 503

        async def free() -> bool:
            async with client.stream("GET", "/dev/inbox/events") as stream:
                return stream.status_code == 200

        await eventually(free)


async def test_a_caller_that_has_gone_waits_no_longer(
    pages: Pages, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_pages, "MAX_LISTENERS", 1)
    async with served(pages) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(LIST, params={"wait": 60}, timeout=httpx.Timeout(30, read=0.5))

        async def free() -> bool:
            return (await client.get(LIST, params={"wait": 0.01})).status_code == 200

        await eventually(free)
    assert inbox.arrivals() == []


async def test_a_stop_does_not_wait_for_listeners(pages: Pages, inbox: Inbox) -> None:
    async with served(pages) as client, client.stream("GET", "/dev/inbox/events") as stream:
        add(inbox, "first")
        lines = stream.aiter_lines()
        await events(lines, 1)
        inbox.end_waits()
        async with asyncio.timeout(30):
            assert [line async for line in lines] == []
