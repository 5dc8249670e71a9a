import asyncio
import json
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest

from services.embedded import mail_inbox as inbox_module
from services.embedded.arrivals import Attachment, attachments_of, headers_of, links_in, mail_fields, read_mail
from services.embedded.mail_inbox import Inbox
from shared.mail import app_link_token
from shared.sealing import Sealer

LINK = "http://127.0.0.1:8080/dev/callback?code=authzcode_1.ab12&state=s%20p"


def mail(to: str = "ada@example.com", subject: str = "Log in") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Beak <hello@example.com>"
    message["To"] = to
    message["Subject"] = subject
    message.set_content(f"Grüß dich! Follow {LINK}.\n")
    message.add_alternative(
        f'<p>Grüß dich! <a href="{LINK.replace("&", "&amp;")}">Log in</a> <a href="mailto:x@example.com">us</a></p>',
        subtype="html",
    )
    return message


async def test_mail_sent_by_smtp_arrives_with_its_link_once(tmp_path: Path) -> None:
    async with Inbox(tmp_path) as inbox:
        await aiosmtplib.send(mail(), hostname="127.0.0.1", port=inbox.smtp_port)
        (arrival,) = inbox.arrivals()
    assert (arrival.kind, arrival.to, arrival.subject) == ("mail", "ada@example.com", "Log in")
    assert arrival.text.startswith("Grüß dich!")
    assert "<p>Grüß dich!" in arrival.html
    assert arrival.links == [LINK, "mailto:x@example.com"]
    assert arrival.at.endswith("Z")


async def test_links_to_apps_are_shown_behind_their_page_or_as_they_are(tmp_path: Path) -> None:
    sealer = Sealer({"test": bytes(range(32))})
    app_link = "beak://callback?state=s&code=authzcode_1.ab12"
    page = f"http://127.0.0.1:8080/open/{app_link_token(sealer, app_link, product_name='Beak')}?lang=en"
    message = EmailMessage()
    message.set_content(f"Open {page} or com.example.app:/cb?a=1. Re: nothing; mailto:x@example.com\n")
    message.add_alternative(f'<a href="{page}">1</a> <a href="other-app:/two">2</a>', subtype="html")
    async with Inbox(tmp_path, sealer) as inbox:
        arrival = inbox.add_mail(bytes(message), ["ada@example.com"])
    assert arrival.links == [page, app_link, "com.example.app:/cb?a=1", "other-app:/two"]
    async with Inbox(tmp_path) as inbox:
        assert inbox.add_mail(bytes(message), ["ada@example.com"]).links == [page, *arrival.links[2:]]


async def test_mail_without_html_and_subject_arrives(tmp_path: Path) -> None:
    async with Inbox(tmp_path) as inbox:
        arrival = inbox.add_mail(b"no header at all\r\n\r\nbody", ["a@example.com", "b@example.com"])
    assert (arrival.to, arrival.subject, arrival.html) == ("a@example.com, b@example.com", "", "")


async def test_arrivals_are_newest_first_and_filtered_by_recipient(tmp_path: Path) -> None:
    async with Inbox(tmp_path) as inbox:
        inbox.add_mail(bytes(mail(subject="first")), ["Ada@example.com"])
        inbox.add_text(to="+4915112345678", text="your code is 123456")
        inbox.add_mail(bytes(mail(subject="third")), ["bob@example.com"])
        assert [a.subject for a in inbox.arrivals()] == ["third", "", "first"]
        assert [a.subject for a in inbox.arrivals(to="ada@EXAMPLE.com")] == ["first"]
        assert [a.text for a in inbox.arrivals(to="+4915112345678")] == ["your code is 123456"]


async def test_arrivals_survive_a_restart_and_a_truncated_line(tmp_path: Path) -> None:
    async with Inbox(tmp_path) as inbox:
        arrival = inbox.add_mail(bytes(mail()), ["ada@example.com"])
    file = tmp_path / "inbox.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open("a") as out:
        out.write('{"id": "cut')
    async with Inbox(tmp_path) as inbox:
        assert inbox.arrivals() == [arrival]
        assert inbox.find(arrival.id) == arrival
        second = inbox.add_text(to="1", text="2")
    async with Inbox(tmp_path) as inbox:
        assert inbox.arrivals() == [second, arrival]


async def test_only_the_newest_arrivals_are_kept(tmp_path: Path) -> None:
    async with Inbox(tmp_path, kept=3) as inbox:
        for number in range(5):
            inbox.add_mail(bytes(mail(subject=str(number))), ["ada@example.com"])
        assert [arrival.subject for arrival in inbox.arrivals()] == ["4", "3", "2"]
        assert len(list((tmp_path / "inbox").iterdir())) == 3
    async with Inbox(tmp_path, kept=2) as inbox:
        assert [arrival.subject for arrival in inbox.arrivals()] == ["4", "3"]
        assert len(list((tmp_path / "inbox").iterdir())) == 2


async def test_mails_over_the_size_of_the_inbox_replace_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "KEPT_BYTES", 3 * len(bytes(mail(subject="0"))))
    async with Inbox(tmp_path) as inbox:
        for number in range(5):
            inbox.add_mail(bytes(mail(subject=str(number))), ["ada@example.com"])
        assert [arrival.subject for arrival in inbox.arrivals()] == ["4", "3", "2"]


async def test_the_file_does_not_grow_with_each_change(tmp_path: Path) -> None:
    async with Inbox(tmp_path, kept=2) as inbox:
        for _ in range(20):
            inbox.delete([inbox.add_text(to="1", text="2").id])
        assert len((tmp_path / "inbox.jsonl").read_text().splitlines()) <= 8


async def test_inbox_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    line = {
        "id": "0123456789abcdef",
        "kind": "mail",
        "to": "ada@example.com",
        "sender": "Beak <hello@example.com>",
        "subject": "Log in",
        "text": "text",
        "html": "",
        "links": ["https://a.example/", "javascript://a.example/%0aalert(1)"],
        "at": "2026-10-01T10:00:00.000Z",
        "attachments": [{"name": "a.pdf", "type": "application/pdf", "size": 3}],
    }
    (tmp_path / "inbox.jsonl").write_text(json.dumps(line) + "\n")
    async with Inbox(tmp_path) as inbox:
        (arrival,) = inbox.arrivals()
        assert (arrival.subject, arrival.read) == ("Log in", False)
        assert arrival.attachments == [Attachment("a.pdf", "application/pdf", 3, content_id="")]
        assert arrival.links == ["https://a.example/"]
        assert inbox.source(arrival.id) is None


async def test_read_and_deleted_arrivals_stay_so_after_a_restart(tmp_path: Path) -> None:
    async with Inbox(tmp_path) as inbox:
        contents = [bytes(mail(subject=name)) for name in "abc"]
        kept, read, deleted = (inbox.add_mail(content, ["a@example.com"]) for content in contents)
        inbox.mark_read(read.id)
        assert inbox.delete([deleted.id, "unknown", deleted.id]) == 1
        assert inbox.source(deleted.id) is None
    async with Inbox(tmp_path) as inbox:
        assert [(each.id, each.read) for each in inbox.arrivals()] == [(read.id, True), (kept.id, False)]
        assert inbox.source(kept.id) == contents[0]
        assert len(list((tmp_path / "inbox").iterdir())) == 2


SEARCHED = {
    "to": "ann@example.com",
    "from": "Demo <hello@demo.example>",
    "subject": "Log in",
    "text": "Your code: QX-7",
}


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", True),
        ("ANN", True),
        ("hello@demo", True),
        ("log", True),
        ("qx-7", True),
        ("ann log", True),
        ("ann nowhere", False),
        ('"your code"', True),
        ('"code your"', False),
        ("to:ann from:demo subject:log text:qx", True),
        ("to:demo", False),
        ("from:ann", False),
        ("subject:qx", False),
        ("text:log", False),
        ("is:unread", True),
        ("is:read", False),
        ('subject:"log in"', True),
        ("https://a.example/state-9", True),
        ('"', False),
    ],
)
async def test_search_looks_at_recipients_sender_subject_text_and_links(
    tmp_path: Path, search: str, *, found: bool
) -> None:
    message = EmailMessage()
    message["From"], message["Subject"] = "Demo <hello@demo.example>", "Log in"
    html = "<style>nowhere</style><p>Your code: QX-7</p><a href='https://a.example/state-9'>b</a>"
    message.set_content(html, "html")
    async with Inbox(tmp_path) as inbox:
        inbox.add_mail(bytes(message), ["ann@example.com"])
        assert bool(inbox.arrivals(search=search)) is found


@pytest.mark.parametrize(
    ("href", "shown"),
    [
        ("https://a.example/?x=1&amp;y=2", "https://a.example/?x=1&y=2"),
        ("com.example.app:/callback", "com.example.app:/callback"),
        ("myapp:open?code=1", "myapp:open?code=1"),
        ("tel:+4915112345678", "tel:+4915112345678"),
        ("javascript:alert(1)", None),
        ("JavaScript:alert(1)", None),
        (" javascript:alert(1)", None),
        ("java&#10;script:alert(1)", None),
        ("&#1;javascript:alert(1)", None),
        ("javascript&colon;alert(1)", None),
        ("data:text/html,<script>alert(1)</script>", None),
        ("vbscript:msgbox", None),
        ("/relative", None),
        ("//a.example/", None),
        ("#top", None),
        ("https://a.example/" + "a" * 5_000, None),
    ],
)
def test_links_have_any_scheme_but_those_of_scripts(href: str, shown: str | None) -> None:
    assert links_in("", f'<a href="{href}">link</a>') == ([shown] if shown else [])
    assert links_in("javascript://a.example/%0aalert(1)", "") == []


def test_broken_mails_are_read_as_far_as_possible() -> None:
    message = read_mail(
        b"Subject: =?utf-8?q?caf=C3=A9?=\r\nX-Raw: caf\xc3\xa9\r\n folded\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain; charset=no-such\r\n\r\ncaf\xc3\xa9\r\n"
        b"--b\r\nContent-Type: application/pdf; name=a.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n"
        b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nnot base64!"
    )
    fields = mail_fields(message)
    assert (fields["subject"], fields["text"].strip()) == ("café", "café")
    assert [each.name for each in fields["attachments"]] == ["a.pdf", "attachment-2"]
    assert next(content for _, content in attachments_of(message)) == b"ABC"
    assert ("X-Raw", "café folded") in headers_of(message)


async def test_listeners_get_every_change_in_order_and_those_that_they_missed(tmp_path: Path) -> None:
    async with Inbox(tmp_path) as inbox:
        start = inbox.last_change
        arrival = inbox.add_text(to="1", text="2")
        inbox.mark_read(arrival.id)
        inbox.mark_read(arrival.id)
        inbox.delete([arrival.id])
        changes = inbox.changes(start)
        seen = [await anext(changes) for _ in range(3)]
        assert [(each.event, each.data.get("id")) for each in seen if each] == [
            ("arrived", arrival.id),
            ("read", arrival.id),
            ("deleted", None),
        ]
        waiting = asyncio.create_task(anext(changes))
        await asyncio.sleep(0)
        second = inbox.add_text(to="1", text="3")
        change = await waiting
        assert change
        assert change.data["id"] == second.id
        assert seen[1]
        late = await anext(inbox.changes(seen[1].id))
        assert late
        assert (late.event, late.data) == ("deleted", {"ids": [arrival.id]})


@pytest.mark.parametrize("after", ["", "-", "other-1", "{run}-99", "{run}-x", "{run}--1", "{run}-" + "9" * 5_000])
async def test_listeners_of_another_run_read_the_list_again(tmp_path: Path, after: str) -> None:
    async with Inbox(tmp_path) as inbox:
        run = inbox.last_change.partition("-")[0]
        first = await anext(inbox.changes(after.format(run=run)))
        assert first
        assert (first.event, first.id) == ("reset", inbox.last_change)


async def test_listeners_that_are_too_far_behind_read_the_list_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "_CHANGES", 2)
    async with Inbox(tmp_path) as inbox:
        start, changes = inbox.last_change, inbox.changes()
        waiting = asyncio.create_task(anext(changes))
        await asyncio.sleep(0)
        for number in range(3):
            inbox.add_text(to="1", text=str(number))
        for first in (await waiting, await anext(inbox.changes(start))):
            assert first
            assert (first.event, first.id) == ("reset", inbox.last_change)


async def test_the_end_of_the_inbox_ends_listeners_and_waits(tmp_path: Path) -> None:
    async with Inbox(tmp_path) as inbox:
        listener = asyncio.create_task(anext(inbox.changes(), "ended"))
        waiting = asyncio.create_task(inbox.wait_for(60))
        await asyncio.sleep(0)
        inbox.end_waits()
        async with asyncio.timeout(30):
            assert (await listener, await waiting) == ("ended", [])


async def test_idle_listeners_get_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "HEARTBEAT_SECONDS", 0.01)
    async with Inbox(tmp_path) as inbox:
        assert await anext(inbox.changes()) is None
