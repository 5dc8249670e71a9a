from email.message import EmailMessage
from pathlib import Path

import aiosmtplib

from services.embedded import mail_inbox as inbox_module
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
    assert arrival.links == [LINK]
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
    async with Inbox(tmp_path) as inbox:
        for number in range(inbox_module.KEPT + 3):
            inbox.add_text(to="1", text=str(number))
    async with Inbox(tmp_path) as inbox:
        kept = [arrival.text for arrival in inbox.arrivals()]
    assert len(kept) == inbox_module.KEPT
    assert kept[-1] == "3"
