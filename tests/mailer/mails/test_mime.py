import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.mailer.mails.mime import UnusableHeader, compose, header
from services.mailer.rendering.renderer import RenderedMail

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def compose_mail(
    subject: str = "Hello", text: str = "Hello.\n", html: str = "<p>Hello.</p>\n", **headers: str
) -> bytes:
    rendered = RenderedMail(subject=subject, text=text, html=html)
    defaults = {"sender": "Nest <n@nest.example>", "recipient": "person@example.com", "message_id": "<1@nest.example>"}
    return compose(rendered, **{**defaults, **headers}, at=NOW)


def parse(content: bytes) -> EmailMessage:
    message = message_from_bytes(content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


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
        ("sender", "From"),
        ("recipient", "To"),
        ("message_id", "Message-ID"),
        ("unsubscribe", "List-Unsubscribe"),
    ],
)
def test_line_breaks_and_control_characters_are_rejected(field: str, header_name: str, character: str) -> None:
    with pytest.raises(UnusableHeader, match=f"^{header_name}$"):
        compose_mail(**{field: f"a{character}Bcc: all@example.com"})


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("other", ["", "ü", "ü" * 100, " and words"])
@pytest.mark.parametrize(
    "word", ["=?utf-8?q?=0D=0ABcc:?=", "=?utf-8?b?DQpCY2M6IGFsbEBleGFtcGxlLmNvbQ==?=", "=?us-ascii?q?=00?="]
)
def test_no_reader_finds_an_encoded_line_break_in_a_sender(word: str, other: str, *, quoted: bool) -> None:
    name = f'"Bcc: all@example.com{word}{other}"' if quoted else f"{word} {other}"
    try:
        mail = compose_mail(sender=f"{name} <mail@nest.example>")
    except UnusableHeader:
        return
    read = message_from_bytes(mail, policy=policy.SMTP)["From"]
    assert not re.search(r"[\x00-\x1f]", str(read))
    assert read.addresses[0].addr_spec == "mail@nest.example"


def test_word_longer_than_a_line_is_rejected() -> None:
    with pytest.raises(UnusableHeader, match="From"):
        compose_mail(sender=f"{'x' * 1000} <n@nest.example>")
    assert (
        parse(compose_mail(sender=f"{'x ' * 1000}<n@nest.example>"))["From"].addresses[0].addr_spec == "n@nest.example"
    )


@pytest.mark.parametrize("field", ["sender", "subject", "recipient"])
def test_non_ascii_value_stays_in_its_header(field: str) -> None:
    names = {"sender": "From", "subject": "Subject", "recipient": "To"}
    values = {"sender": "Ünï 💥 مرحبا <n@nest.example>", "subject": "Ünï 💥 مرحبا", "recipient": "пошта@example.com"}
    content = compose_mail(**{field: values[field]})
    message = parse(content)
    assert sorted(message.keys()) == sorted(parse(compose_mail()).keys())
    assert str(message[names[field]]) == values[field]
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
    encoded = header("Subject", subject)
    assert b"Bcc" not in encoded
    assert message_from_bytes(encoded, policy=policy.default)["Subject"] == subject
