from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.mail_reports import order_id_of, parse_report

ORDER = "0123456789abcdef" * 2
RETURNED = f"Message-ID: <{ORDER}@nest.example>\r\nSubject: Hello\r\n"
DSN = """\
From: MAILER-DAEMON@mx.example
To: {to}
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

This is the mail system at host mx.example. I'm sorry.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example
Arrival-Date: Sat, 21 Nov 2026 06:05:00 +0000

Final-Recipient: rfc822; person@example.com
Action: {action}
Status: {status}
Diagnostic-Code: smtp; 550 {status} <person@example.com>: no such user h\xe9re

--b
{returned}

--b--
"""
HEADERS = f"Content-Type: text/rfc822-headers\n\n{RETURNED}"
WHOLE = f"Content-Type: message/rfc822\n\n{RETURNED}\n\nThe link: https://example.com/?code=secret"
ARF = """\
From: feedback@mailbox.example
To: mail@nest.example
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="b"

--b
Content-Type: text/plain

This is an email abuse report.

--b
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: SomeGenerator/1.0
Version: 1

--b
{returned}

--b--
"""


def dsn(to: str = "mail@nest.example", action: str = "failed", status: str = "5.1.1", returned: str = HEADERS) -> bytes:
    text = DSN.format(to=to, action=action, status=status, returned=returned)
    return text.replace("\n", "\r\n").encode("latin-1")


@pytest.mark.parametrize("returned", [HEADERS, WHOLE])
def test_a_bounce_is_known_by_the_mail_that_it_returns(returned: str) -> None:
    notice = parse_report(dsn(returned=returned))
    assert notice is not None
    assert (notice.key, notice.order_id, notice.notice, notice.status) == (ORDER, ORDER, "bounced", "5.1.1")


def test_a_bounce_keeps_what_the_server_said_without_the_address() -> None:
    notice = parse_report(dsn())
    assert notice is not None
    assert notice.reason.startswith("550 5.1.1 <<address>>: no such user h")
    assert notice.reason.isascii()


def test_a_bounce_that_returns_nothing_is_known_by_its_return_address() -> None:
    for to in (f"mail+{ORDER}@nest.example", f'"Nest" <mail+{ORDER}@nest.example>'):
        notice = parse_report(dsn(to=to, returned="Content-Type: text/plain\n\nnothing"))
        assert notice is not None
        assert notice.order_id == ORDER


@pytest.mark.parametrize(
    ("action", "kind"),
    [("failed", "bounced"), ("Failed", "bounced"), ("delivered", "delivered"), ("delayed", None), ("relayed", None)],
)
def test_only_what_settles_a_delivery_is_told(action: str, kind: str | None) -> None:
    notice = parse_report(dsn(action=action, status="2.0.0"))
    assert (notice and notice.notice) == kind


def test_a_status_that_is_none_is_left_out() -> None:
    notice = parse_report(dsn(status="permanent"))
    assert notice is not None
    assert notice.status is None


@pytest.mark.parametrize(("kind", "told"), [("abuse", "complained"), ("fraud", "complained"), ("not-spam", None)])
def test_a_complaint_is_told_as_such(kind: str, told: str | None) -> None:
    for returned in (HEADERS, WHOLE):
        notice = parse_report(ARF.format(kind=kind, returned=returned).encode())
        assert (notice and notice.notice) == told
        assert notice is None or notice.order_id == ORDER


def test_what_is_no_report_about_a_mail_of_ours_tells_nothing() -> None:
    answer = MIMEText("I'm on holiday until Monday.")
    answer["To"] = f"mail+{ORDER}@nest.example"
    other = dsn(returned="Content-Type: text/rfc822-headers\n\nMessage-ID: <1@elsewhere.example>\n")
    for mail in (answer.as_bytes(), other, b"", b"\xff\xfe\x00", b"Content-Type: message/delivery-status\r\n\r\n"):
        assert parse_report(mail) is None


def test_parts_in_parts_without_end_tell_nothing() -> None:
    deep = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(5000))
    assert parse_report(deep) is None
    assert parse_report(b"Content-Type: message/rfc822\r\n\r\n" * 15_000) is None


def test_attachments_are_no_report() -> None:
    mail = MIMEMultipart()
    mail["To"] = f"mail+{ORDER}@nest.example"
    mail.attach(MIMEApplication(dsn(), "octet-stream"))
    assert parse_report(mail.as_bytes()) is None


@given(st.binary(max_size=400), st.integers(0, 1500), st.integers(0, 40))
def test_no_damage_to_a_report_is_too_much(noise: bytes, place: int, cut: int) -> None:
    whole = dsn()
    notice = parse_report(whole[:place] + noise + whole[place + cut :])
    assert notice is None or notice.order_id == ORDER or noise


@pytest.mark.parametrize(
    ("message_id", "order_id"),
    [
        (f"<{ORDER}@nest.example>", ORDER),
        (f"{ORDER}@nest.example", ORDER),
        (f"<{ORDER.upper()}@nest.example>", None),
        (f"<{ORDER}@>", None),
        (f"<{ORDER[1:]}@nest.example>", None),
        (f"<x{ORDER}@nest.example>", None),
        ("", None),
    ],
)
def test_a_message_id_of_ours_holds_the_order(message_id: str, order_id: str | None) -> None:
    assert order_id_of(message_id) == order_id
