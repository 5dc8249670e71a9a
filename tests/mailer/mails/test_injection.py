"""Whatever stands in a name, an address or a subject, the envelope and the headers are those that were meant."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.mailer.deliveries.models import Accepted
from services.mailer.mails.addresses import UnusableAddress, usable_address
from services.mailer.mails.mime import UnusableHeader, compose
from services.mailer.rendering.renderer import RenderedMail
from services.mailer.smtp.smtp_client import Mail
from shared.messages import Sealed
from shared.messages.mailer.mails import SendMail
from tests.mailer.smtp.test_smtp_client import client
from tests.mailer.smtp_server import SmtpServer
from tests.service_harness import ServiceHarness

HEADERS = ["From", "To", "Subject", "Message-ID", "Date", "Auto-Submitted", "MIME-Version", "Content-Type"]
LINK = "https://magic.getbeak.app/?code=a.b"
BREAKS = ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\x00", "\x7f"]
COMMANDS = [
    "Bcc: all@example.com",
    "\r\n.\r\nMAIL FROM:<eve@example.com>\r\nRCPT TO:<all@example.com>\r\nDATA\r\n",
    "RCPT TO:<all@example.com>",
    ">\r\nRCPT TO:<all@example.com",
    "=?utf-8?q?=0D=0ABcc:_all=40example.com?=",
    "=?utf-8?b?DQpCY2M6IGFsbEBleGFtcGxlLmNvbQ==?=",
    "Content-Type: text/html\r\n\r\n<script>",
    "💥 ünï \u202e \ufeff",
    "x" * 10_000,
    "ü" * 10_000,
    '"', "\\", "<", ">", ",", ";", ":", "@", "(", ")", "{{ 7 * 7 }}", "{% raw %}", " ", "\t",
]  # fmt: skip
NASTY = st.lists(
    st.sampled_from(BREAKS + COMMANDS) | st.text(max_size=60) | st.characters(), min_size=1, max_size=12
).map("".join)
AT = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
BREAKING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def as_sent(server: SmtpServer, recipient: str, subject: str | None = None) -> None:
    """One mail arrived: in the envelope that was meant, with the headers that were meant, once each."""
    [arrival] = server.arrivals
    assert arrival.recipients == [recipient]
    assert arrival.sender == "mail@nest.example"
    message = arrival.message
    assert sorted(message.keys()) == sorted(HEADERS)
    if recipient.isascii():
        assert not [header for header in HEADERS if message[header].defects]
        assert message["To"] == recipient
    # As RFC 6532 has it, which the library reads with a murmur.
    assert f"\r\nTo: {recipient}\r\n".encode() in arrival.content
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    if subject is not None:
        assert message["Subject"] == subject
    head = arrival.content.partition(b"\r\n\r\n")[0]
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert b"\r" not in head.replace(b"\r\n", b"")
    assert max(map(len, arrival.content.split(b"\r\n"))) <= 998
    said = [command.partition(" ")[0] for command in server.commands]
    assert said == ["MAIL", "RCPT", "DATA"]


@MANY
@given(name=NASTY)
async def test_a_name_stays_a_name(harness: ServiceHarness, server: SmtpServer, name: str) -> None:
    server.arrivals.clear()
    server.commands.clear()
    try:
        variables = json.dumps({"name": name})
        command = SendMail(template="welcome", to=Sealed.of("person@example.com"), variables=Sealed.of(variables))
        await harness.deliver(command)
    except UnicodeEncodeError:
        # Half a character can't even be ordered.
        return
    as_sent(server, "person@example.com")


@MANY
@given(text=NASTY, place=st.sampled_from(["reason", "amount", "dispute_id"]))
async def test_words_of_others_stay_words(harness: ServiceHarness, server: SmtpServer, text: str, place: str) -> None:
    server.arrivals.clear()
    server.commands.clear()
    variables: dict[str, Any] = {"dispute_id": "du_1", "amount": "12.00 EUR", "reason": "fraudulent", place: text}
    try:
        shown = Sealed.of(json.dumps(variables))
        await harness.deliver(SendMail(template="dispute", to=Sealed.of("person@example.com"), variables=shown))
    except UnicodeEncodeError:
        return
    as_sent(server, "person@example.com")


@MANY
@given(before=NASTY, after=NASTY, whole=st.booleans())
async def test_an_address_is_one_recipient_or_none(
    harness: ServiceHarness, server: SmtpServer, before: str, after: str, *, whole: bool
) -> None:
    server.arrivals.clear()
    server.commands.clear()
    address = f"{before}@{after}" if whole else f"person{before}@example.com{after}"
    try:
        recipient = usable_address(address)
    except (UnusableAddress, UnicodeEncodeError):
        recipient = None
    link = Sealed.of(json.dumps({"link": LINK}))
    try:
        await harness.deliver(SendMail(template="magic-link", to=Sealed.of(address), variables=link))
    except UnicodeEncodeError:
        return
    if recipient is None:
        assert (server.arrivals, server.commands) == ([], [])
    else:
        as_sent(server, recipient)


@MANY
@given(subject=NASTY, name=NASTY)
async def test_a_subject_and_a_sender_are_written_whole_or_not_at_all(
    server: SmtpServer, subject: str, name: str
) -> None:
    server.arrivals.clear()
    server.commands.clear()
    letter = RenderedMail(subject=subject, text="Hello.\n", html="<p>Hello.</p>\n")
    message_id = "<1@nest.example>"
    try:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        content = compose(
            letter,
            sender=f'"{quoted}" <mail@nest.example>',
            recipient="person@example.com",
            message_id=message_id,
            at=AT,
        )
    except UnusableHeader:
        assert BREAKING.search(subject + name) or "=?" in name or max(map(len, name.split()), default=0) > 900
        return
    mail = Mail(message_id=message_id, sender="mail@nest.example", recipient="person@example.com", content=content)
    async with client(server.port) as smtp:
        assert await smtp.send(mail) == Accepted("250 taken")
    as_sent(server, "person@example.com")
    [sender] = server.arrivals[0].message["From"].addresses
    assert sender.addr_spec == "mail@nest.example"


@pytest.mark.parametrize("dots", [".", "..", ".\r\nMAIL FROM:<eve@example.com>", "\n.\n", "\r\n.\r\nQUIT"])
async def test_lines_of_dots_do_not_end_a_mail(server: SmtpServer, dots: str) -> None:
    letter = RenderedMail(subject="Hello", text=f"{dots}\n{dots}\n", html=f"<p>{dots}</p>\n")
    content = compose(letter, sender="mail@nest.example", recipient="p@example.com", message_id="<1@n.example>", at=AT)
    mail = Mail(message_id="<1@n.example>", sender="mail@nest.example", recipient="p@example.com", content=content)
    async with client(server.port) as smtp:
        outcome = await smtp.send(mail)
    assert outcome == Accepted("250 taken")
    assert len(server.arrivals) == 1
    assert server.arrivals[0].content == content
    assert [command.partition(" ")[0] for command in server.commands] == ["MAIL", "RCPT", "DATA"]
