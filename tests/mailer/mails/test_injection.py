"""Injection through names, addresses and subjects: the envelope and the headers are always the intended ones."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticSerializationError

from services.mailer.deliveries.models import Accepted
from services.mailer.mails.addresses import UnusableAddress, usable_address
from services.mailer.mails.mime import UnusableHeader, compose
from services.mailer.rendering.renderer import RenderedMail
from services.mailer.smtp.smtp_client import Mail
from shared.messages import Sealed
from shared.messages.mailer.mails import LastLogin, SendMail
from tests.mailer.mails.test_mime import read_sender
from tests.mailer.smtp.test_smtp_client import smtp_client
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
HOSTILE = st.lists(
    st.sampled_from(BREAKS + COMMANDS) | st.text(max_size=60) | st.characters(), min_size=1, max_size=12
).map("".join)
AT = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_one_intact_mail(server: SmtpServer, recipient: str) -> None:
    """One mail arrived, with the intended envelope and each intended header once."""
    [arrival] = server.arrivals
    assert arrival.recipients == [recipient]
    assert arrival.sender == "mail@nest.example"
    message = arrival.message
    assert sorted(message.keys()) == sorted(HEADERS)
    if recipient.isascii():
        assert not [header for header in HEADERS if message[header].defects]
        assert message["To"] == recipient
    # The format of RFC 6532, for which the library reports defects.
    assert f"\r\nTo: {recipient}\r\n".encode() in arrival.content
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    head = arrival.content.partition(b"\r\n\r\n")[0]
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert b"\r" not in head.replace(b"\r\n", b"")
    assert max(map(len, arrival.content.split(b"\r\n"))) <= 998
    verbs = [command.partition(" ")[0] for command in server.commands]
    assert verbs == ["MAIL", "RCPT", "DATA"]


@MANY
@given(name=HOSTILE)
@example(name="\ud800")
async def test_name_cannot_inject(harness: ServiceHarness, server: SmtpServer, name: str) -> None:
    server.arrivals.clear()
    server.commands.clear()
    try:
        variables = json.dumps({"name": name}, ensure_ascii=False)
        command = SendMail(
            template="welcome",
            to=Sealed.of("person@example.com"),
            variables=Sealed.of(variables),
            last_login=LastLogin(),
        )
        await harness.deliver(command)
    except PydanticSerializationError:
        # A lone surrogate cannot be encoded in a message.
        return
    assert_one_intact_mail(server, "person@example.com")


@MANY
@given(text=HOSTILE, field=st.sampled_from(["reason", "amount", "dispute_id"]))
@example(text="\ud800", field="reason")
async def test_dispute_fields_cannot_inject(harness: ServiceHarness, server: SmtpServer, text: str, field: str) -> None:
    server.arrivals.clear()
    server.commands.clear()
    variables: dict[str, Any] = {"dispute_id": "du_1", "amount": "12.00 EUR", "reason": "fraudulent", field: text}
    try:
        sealed = Sealed.of(json.dumps(variables, ensure_ascii=False))
        await harness.deliver(SendMail(template="dispute", to=Sealed.of("person@example.com"), variables=sealed))
    except PydanticSerializationError:
        return
    assert_one_intact_mail(server, "person@example.com")


@MANY
@given(before=HOSTILE, after=HOSTILE, whole=st.booleans())
async def test_address_is_one_recipient_or_rejected(
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
    except (UnicodeEncodeError, PydanticSerializationError):
        # A lone surrogate cannot be encoded in a message.
        return
    if recipient is None:
        assert (server.arrivals, server.commands) == ([], [])
    else:
        assert_one_intact_mail(server, recipient)


@MANY
@example(subject="Hello", name="Bcc: all@example.com=?utf-8?b?DQpCY2M6IGFsbEBleGFtcGxlLmNvbQ==?=ü")
@example(subject="Hello", name=f"{COMMANDS[0]}{COMMANDS[0]}{COMMANDS[4]}")
@given(subject=HOSTILE, name=HOSTILE)
async def test_subject_and_sender_are_intact_or_rejected(server: SmtpServer, subject: str, name: str) -> None:
    server.arrivals.clear()
    server.commands.clear()
    rendered = RenderedMail(subject=subject, text="Hello.\n", html="<p>Hello.</p>\n")
    message_id = "<1@nest.example>"
    try:
        content = compose(
            rendered,
            sender_name=name,
            sender_address="mail@nest.example",
            recipient="person@example.com",
            message_id=message_id,
            at=AT,
        )
    except UnusableHeader:
        assert FORBIDDEN.search(subject + name)
        return
    mail = Mail(message_id=message_id, sender="mail@nest.example", recipient="person@example.com", content=content)
    async with smtp_client(server.port) as smtp:
        assert await smtp.send(mail) == Accepted("250 taken")
    assert_one_intact_mail(server, "person@example.com")
    assert read_sender(content) == (name, "mail@nest.example")


@pytest.mark.parametrize("dots", [".", "..", ".\r\nMAIL FROM:<eve@example.com>", "\n.\n", "\r\n.\r\nQUIT"])
async def test_lines_of_dots_do_not_end_the_content(server: SmtpServer, dots: str) -> None:
    rendered = RenderedMail(subject="Hello", text=f"{dots}\n{dots}\n", html=f"<p>{dots}</p>\n")
    content = compose(
        rendered,
        sender_name=None,
        sender_address="mail@nest.example",
        recipient="p@example.com",
        message_id="<1@n.example>",
        at=AT,
    )
    mail = Mail(message_id="<1@n.example>", sender="mail@nest.example", recipient="p@example.com", content=content)
    async with smtp_client(server.port) as smtp:
        outcome = await smtp.send(mail)
    assert outcome == Accepted("250 taken")
    assert len(server.arrivals) == 1
    assert server.arrivals[0].content == content
    assert [command.partition(" ")[0] for command in server.commands] == ["MAIL", "RCPT", "DATA"]
