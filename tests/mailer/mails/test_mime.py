from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.mailer.mails.mime import UnusableHeader, compose, header
from services.mailer.rendering.renderer import RenderedMail

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def composed(subject: str = "Hello", text: str = "Hello.\n", html: str = "<p>Hello.</p>\n", **headers: str) -> bytes:
    letter = RenderedMail(subject=subject, text=text, html=html)
    usual = {"sender": "Nest <n@nest.example>", "recipient": "person@example.com", "message_id": "<1@nest.example>"}
    return compose(letter, **{**usual, **headers}, at=NOW)


def read(content: bytes) -> EmailMessage:
    message = message_from_bytes(content, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    assert not part.defects
    return str(part.get_content()).replace("\r\n", "\n")


def test_a_mail_has_a_text_and_the_same_as_html() -> None:
    message = read(composed())
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert (body(message, "plain"), body(message, "html")) == ("Hello.\n", "<p>Hello.</p>\n")
    assert not message.defects


def test_a_mail_says_that_no_person_wrote_it_and_when() -> None:
    message = read(composed())
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime == NOW
    assert message["Message-ID"] == "<1@nest.example>"


def test_every_line_ends_as_smtp_wants_and_is_short_enough() -> None:
    content = composed(text="x" * 2000 + "\nü\n", html="<p>" + "y" * 5000 + "</p>\n")
    assert content.replace(b"\r\n", b"").count(b"\n") == content.replace(b"\r\n", b"").count(b"\r") == 0
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert content.isascii()
    assert body(read(content), "plain") == "x" * 2000 + "\nü\n"


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029")))
@example("0\xa1\u0800\u0800\u0800\u0800\u0800\u0800\u0800\u0800\u0800\u0800\u0800 \xa1 \xa1")
def test_any_subject_and_name_come_back_as_they_were(words: str) -> None:
    subject = " ".join(f"About {words}".split())
    message = read(composed(subject=subject))
    assert message["Subject"] == subject
    assert message["To"] == "person@example.com"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r")))
def test_any_text_comes_back_as_it_was(text: str) -> None:
    message = read(composed(text=text, html="<p>x</p>"))
    assert body(message, "plain") == text
    assert len(list(message.iter_parts())) == 2


@pytest.mark.parametrize("breaking", ["\r\n", "\n", "\r", "\0", "\x0b", "\x85", "\u2028", "\ud800"])
@pytest.mark.parametrize(
    ("field", "named"),
    [
        ("subject", "Subject"),
        ("sender", "From"),
        ("recipient", "To"),
        ("message_id", "Message-ID"),
        ("unsubscribe", "List-Unsubscribe"),
    ],
)
def test_a_value_that_breaks_its_header_is_refused(field: str, named: str, breaking: str) -> None:
    with pytest.raises(UnusableHeader, match=f"^{named}$"):
        composed(**{field: f"a{breaking}Bcc: all@example.com"})


def test_a_name_that_no_line_has_room_for_is_refused() -> None:
    with pytest.raises(UnusableHeader, match="From"):
        composed(sender=f"{'x' * 1000} <n@nest.example>")
    assert read(composed(sender=f"{'x ' * 1000}<n@nest.example>"))["From"].addresses[0].addr_spec == "n@nest.example"


@pytest.mark.parametrize("field", ["sender", "subject", "recipient"])
def test_what_is_not_ascii_stays_in_its_header(field: str) -> None:
    names = {"sender": "From", "subject": "Subject", "recipient": "To"}
    whole = {"sender": "Ünï 💥 مرحبا <n@nest.example>", "subject": "Ünï 💥 مرحبا", "recipient": "пошта@example.com"}
    content = composed(**{field: whole[field]})
    message = read(content)
    assert sorted(message.keys()) == sorted(read(composed()).keys())
    assert str(message[names[field]]) == whole[field]
    assert content.partition(b"\r\n\r\n")[0].isascii() == (field != "recipient")


def test_a_boundary_can_not_be_guessed() -> None:
    assert read(composed()).get_boundary() != read(composed()).get_boundary()


@pytest.mark.parametrize(
    "subject",
    [
        "Dispute: =?utf-8?q?=0D=0ABcc:_all=40example.com?=",
        "=?utf-8?b?DQpCY2M6IGFsbEBleGFtcGxlLmNvbQ==?= and more",
        "=?us-ascii?q?a?= =?",
    ],
)
def test_what_merely_looks_encoded_stays_as_it_is_written(subject: str) -> None:
    """The standard library decodes an encoded word (RFC 2047) in a subject, and writes the line break in it."""
    written = header("Subject", subject)
    assert b"Bcc" not in written
    assert message_from_bytes(written, policy=policy.default)["Subject"] == subject
