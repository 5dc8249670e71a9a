from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.mailer.mails.mime import UnusableHeader, compose
from services.mailer.rendering.renderer import RenderedMail

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def compose_mail(
    subject: str = "Hello", text: str = "Hello.\n", html: str = "<p>Hello.</p>\n", **headers: str | None
) -> bytes:
    rendered = RenderedMail(subject=subject, text=text, html=html)
    defaults = {
        "sender_name": "Nest",
        "sender_address": "n@nest.example",
        "recipient": "person@example.com",
        "message_id": "<1@nest.example>",
    }
    arguments: dict[str, Any] = {**defaults, **headers}
    return compose(rendered, **arguments, at=NOW)


def parse(content: bytes) -> EmailMessage:
    message = message_from_bytes(content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def read_sender(content: bytes) -> tuple[str, str]:
    """The display name and the address in ``From``."""
    read = message_from_bytes(content, policy=policy.SMTP)["From"]
    assert not read.defects
    [sender] = read.addresses
    phrase = message_from_bytes(content)["From"].rpartition("<")[0].strip()
    # The newer parser does not join encoded words (RFC 2047 section 6.2).
    name = str(make_header(decode_header(phrase))) if phrase.startswith("=?") else sender.display_name
    return name, sender.addr_spec


def body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    assert not part.defects
    return str(part.get_content()).replace("\r\n", "\n")


def test_mail_has_plain_text_and_html() -> None:
    message = parse(compose_mail())
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert (body(message, "plain"), body(message, "html")) == ("Hello.\n", "<p>Hello.</p>\n")
    assert not message.defects


def test_mail_has_auto_submitted_date_and_message_id() -> None:
    message = parse(compose_mail())
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime == NOW
    assert message["Message-ID"] == "<1@nest.example>"


def test_lines_end_with_crlf_and_have_at_most_998_characters() -> None:
    content = compose_mail(text="x" * 2000 + "\nü\n", html="<p>" + "y" * 5000 + "</p>\n")
    assert content.replace(b"\r\n", b"").count(b"\n") == content.replace(b"\r\n", b"").count(b"\r") == 0
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert content.isascii()
    assert body(parse(content), "plain") == "x" * 2000 + "\nü\n"


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029")))
@example("x" * 1000)
@example("0\xa1\u0800\u0800\u0800\u0800\u0800\u0800\u0800\u0800\u0800\u0800\u0800 \xa1 \xa1")
def test_any_subject_survives_encoding(text: str) -> None:
    subject = " ".join(f"About {text}".split())
    message = parse(compose_mail(subject=subject))
    assert message["Subject"] == subject
    assert message["To"] == "person@example.com"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r")))
def test_any_text_survives_encoding(text: str) -> None:
    message = parse(compose_mail(text=text, html="<p>x</p>"))
    assert body(message, "plain") == text
    assert len(list(message.iter_parts())) == 2


@pytest.mark.parametrize("character", ["\r\n", "\n", "\r", "\0", "\x0b", "\x85", "\u2028", "\ud800"])
@pytest.mark.parametrize(
    ("field", "header_name"),
    [
        ("subject", "Subject"),
        ("sender_name", "From"),
        ("sender_address", "From"),
        ("recipient", "To"),
        ("message_id", "Message-ID"),
        ("unsubscribe", "List-Unsubscribe"),
    ],
)
def test_line_breaks_and_control_characters_are_rejected(field: str, header_name: str, character: str) -> None:
    with pytest.raises(UnusableHeader, match=f"^{header_name}$"):
        compose_mail(**{field: f"a{character}Bcc: all@example.com"})


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029"))


@given(
    NAMES
    | st.lists(st.sampled_from(["Acme, Inc.", " ", '"', "\\", "<a@b.example>", ":", "=?utf-8?q?a?="])).map("".join)
)
@example("=?utf-8?q?=0D=0ABcc:?=")
@example("Bcc: all@example.com=?utf-8?b?DQpCY2M6IGFsbEBleGFtcGxlLmNvbQ==?= and words")
@example("=?us-ascii?q?=00?=" + "ü" * 100)
@example("x" * 1000)
@example("x " * 1000)
@example("a  b")
@example(" a")
def test_any_sender_survives_encoding(name: str) -> None:
    content = compose_mail(sender_name=name)
    assert read_sender(content) == (name, "n@nest.example")
    assert max(map(len, content.partition(b"\r\nTo:")[0].split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Nest", b"From: Nest <n@nest.example>"),
        (None, b"From: n@nest.example"),
        ("Acme, Inc.", b'From: "Acme, Inc." <n@nest.example>'),
        ('Nest "the best"', rb'From: "Nest \"the best\"" <n@nest.example>'),
        ("Ünï", b"From: =?utf-8?b?w5xuw68=?=\r\n <n@nest.example>"),
    ],
)
def test_a_sender_is_encoded_only_if_it_must_be(name: str | None, line: bytes) -> None:
    assert compose_mail(sender_name=name).startswith(line + b"\r\n")


@pytest.mark.parametrize(
    ("field", "value", "name", "read"),
    [
        ("sender_name", "Ünï 💥 مرحبا", "From", "Ünï 💥 مرحبا <n@nest.example>"),
        ("subject", "Ünï 💥 مرحبا", "Subject", "Ünï 💥 مرحبا"),
        ("recipient", "пошта@example.com", "To", "пошта@example.com"),
    ],
)
def test_non_ascii_value_stays_in_its_header(field: str, value: str, name: str, read: str) -> None:
    content = compose_mail(**{field: value})
    message = parse(content)
    assert sorted(message.keys()) == sorted(parse(compose_mail()).keys())
    assert str(message[name]) == read
    assert content.partition(b"\r\n\r\n")[0].isascii() == (field != "recipient")


def test_boundary_is_random() -> None:
    assert parse(compose_mail()).get_boundary() != parse(compose_mail()).get_boundary()


@pytest.mark.parametrize(
    "subject",
    [
        "Dispute: =?utf-8?q?=0D=0ABcc:_all=40example.com?=",
        "=?utf-8?b?DQpCY2M6IGFsbEBleGFtcGxlLmNvbQ==?= and more",
        "=?us-ascii?q?a?= =?",
    ],
)
def test_subject_that_looks_encoded_is_not_decoded(subject: str) -> None:
    # The standard library decodes an encoded word (RFC 2047) in a subject, including a line break in it.
    content = compose_mail(subject=subject)
    assert b"Bcc" not in content
    assert parse(content)["Subject"] == subject
