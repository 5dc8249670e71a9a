import re
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

Feedback-Type: {feedback_type}
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
def test_bounce_is_matched_by_the_returned_mail(returned: str) -> None:
    notice = parse_report(dsn(returned=returned))
    assert notice is not None
    assert (notice.key, notice.order_id, notice.notice, notice.status) == (ORDER, ORDER, "bounced", "5.1.1")


def test_bounce_reason_has_no_address() -> None:
    notice = parse_report(dsn())
    assert notice is not None
    assert notice.reason.startswith("550 5.1.1 <<address>>: no such user h")
    assert notice.reason.isascii()


def test_bounce_without_returned_mail_is_matched_by_its_return_path() -> None:
    for to in (f"mail+{ORDER}@nest.example", f'"Nest" <mail+{ORDER}@nest.example>'):
        notice = parse_report(dsn(to=to, returned="Content-Type: text/plain\n\nnothing"))
        assert notice is not None
        assert notice.order_id == ORDER


@pytest.mark.parametrize(
    ("action", "notice_kind"),
    [("failed", "bounced"), ("Failed", "bounced"), ("delivered", "delivered"), ("delayed", None), ("relayed", None)],
)
def test_only_final_actions_become_notices(action: str, notice_kind: str | None) -> None:
    notice = parse_report(dsn(action=action, status="2.0.0"))
    assert (notice and notice.notice) == notice_kind


def test_malformed_status_is_omitted() -> None:
    notice = parse_report(dsn(status="permanent"))
    assert notice is not None
    assert notice.status is None


@pytest.mark.parametrize(
    ("feedback_type", "notice_kind"), [("abuse", "complained"), ("fraud", "complained"), ("not-spam", None)]
)
def test_complaint_becomes_a_notice(feedback_type: str, notice_kind: str | None) -> None:
    for returned in (HEADERS, WHOLE):
        notice = parse_report(ARF.format(feedback_type=feedback_type, returned=returned).encode())
        assert (notice and notice.notice) == notice_kind
        assert notice is None or notice.order_id == ORDER


def test_other_mails_give_no_notice() -> None:
    out_of_office = MIMEText("I'm on holiday until Monday.")
    out_of_office["To"] = f"mail+{ORDER}@nest.example"
    other = dsn(returned="Content-Type: text/rfc822-headers\n\nMessage-ID: <1@elsewhere.example>\n")
    for mail in (
        out_of_office.as_bytes(),
        other,
        b"",
        b"\xff\xfe\x00",
        b"Content-Type: message/delivery-status\r\n\r\n",
    ):
        assert parse_report(mail) is None


def test_deeply_nested_parts_give_no_notice() -> None:
    deep = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(5000))
    assert parse_report(deep) is None
    assert parse_report(b"Content-Type: message/rfc822\r\n\r\n" * 15_000) is None


def test_attached_report_gives_no_notice() -> None:
    mail = MIMEMultipart()
    mail["To"] = f"mail+{ORDER}@nest.example"
    mail.attach(MIMEApplication(dsn(), "octet-stream"))
    assert parse_report(mail.as_bytes()) is None


@given(st.binary(max_size=400), st.integers(0, 1500), st.integers(0, 40))
def test_damaged_report_never_raises(garbage: bytes, place: int, cut: int) -> None:
    whole = dsn()
    notice = parse_report(whole[:place] + garbage + whole[place + cut :])
    assert notice is None or re.fullmatch("[0-9a-f]{32}", notice.order_id)


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
def test_message_id_contains_the_command_id(message_id: str, order_id: str | None) -> None:
    assert order_id_of(message_id) == order_id
