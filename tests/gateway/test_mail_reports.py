import base64
import quopri
import re
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.mail_reports import IgnoredReport, notice_of, order_id_of, parse_report
from shared.messages.mailer.suppressions import RecordMailNotice, RecordProviderNotice

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
Diagnostic-Code: smtp; {diagnostic}

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


def dsn(
    to: str = "mail@nest.example",
    action: str = "failed",
    status: str = "5.1.1",
    returned: str = HEADERS,
    diagnostic: str = "550 5.1.1 <person@example.com>: no such user h\xe9re",
) -> bytes:
    text = DSN.format(to=to, action=action, status=status, returned=returned, diagnostic=diagnostic)
    return text.replace("\n", "\r\n").encode("latin-1")


def parse(report: bytes) -> RecordMailNotice:
    """The notice about a mail of Nest."""
    notice = parse_report(report)
    assert isinstance(notice, RecordMailNotice)
    return notice


def flaw_of(report: bytes) -> str:
    """Why a report is ignored."""
    with pytest.raises(IgnoredReport) as ignored:
        parse_report(report)
    return ignored.value.reason


@pytest.mark.parametrize("returned", [HEADERS, WHOLE])
def test_bounce_is_matched_by_the_returned_mail(returned: str) -> None:
    notice = parse(dsn(returned=returned))
    assert (notice.key, notice.order_id, notice.notice, notice.status) == (ORDER, ORDER, "bounced", "5.1.1")


def test_bounce_reason_has_no_address() -> None:
    notice = parse(dsn())
    assert notice.reason.startswith("550 5.1.1 <<address>>: no such user h")
    assert notice.reason.isascii()


@pytest.mark.parametrize(
    "diagnostic",
    [
        "smtp; 550 5.1.1 RESOLVER.ADR.RecipNotFound; not found",
        "SMTP;550 5.1.1 RESOLVER.ADR.RecipNotFound; not found",
        "X-Postfix ; 550 5.1.1 RESOLVER.ADR.RecipNotFound; not found",
        "550 5.1.1 RESOLVER.ADR.RecipNotFound; not found",
    ],
)
def test_diagnostic_code_is_read_with_and_without_its_type(diagnostic: str) -> None:
    """RFC 3464 section 2.3.6, and servers that leave the type out; Amazon SES notifies of it in JSON."""
    reason = "550 5.1.1 RESOLVER.ADR.RecipNotFound; not found"
    report = dsn().replace(b"smtp; 550 5.1.1 <person@example.com>: no such user h\xe9re", diagnostic.encode())
    assert parse(report).reason == reason
    assert notice_of(f"{ORDER}@nest.example", "bounced", "5.0.0", diagnostic).reason == reason


def test_bounce_without_returned_mail_is_matched_by_its_return_path() -> None:
    for to in (f"mail+{ORDER}@nest.example", f'"Nest" <mail+{ORDER}@nest.example>'):
        assert parse(dsn(to=to, returned="Content-Type: text/plain\n\nnothing")).order_id == ORDER


@pytest.mark.parametrize(
    ("action", "notice_kind"),
    [
        ("failed", "bounced"),
        ("Failed", "bounced"),
        ("failed (5.1.1)", "bounced"),
        ("delivered", "delivered"),
        ("delayed", None),
        ("relayed", None),
        ("expanded", None),
        ("", None),
    ],
)
def test_only_final_actions_become_notices(action: str, notice_kind: str | None) -> None:
    report = dsn(action=action, status="2.0.0")
    if notice_kind is None:
        assert flaw_of(report) == "not_final"
    else:
        assert parse(report).notice == notice_kind


def test_malformed_status_is_omitted() -> None:
    assert parse(dsn(status="permanent")).status is None


@pytest.mark.parametrize(
    ("feedback_type", "notice_kind"), [("abuse", "complained"), ("fraud", "complained"), ("not-spam", None)]
)
def test_complaint_becomes_a_notice(feedback_type: str, notice_kind: str | None) -> None:
    for returned in (HEADERS, WHOLE):
        report = ARF.format(feedback_type=feedback_type, returned=returned).encode()
        if notice_kind is None:
            assert flaw_of(report) == "not_final"
        else:
            notice = parse(report)
            assert (notice.notice, notice.order_id) == (notice_kind, ORDER)


OUTLOOK = f"""\
From: staff@mailbox.example
Subject: complaint about message from 192.0.2.1
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="b"

--b
Content-Type: message/rfc822
Content-Disposition: inline

X-HmXmrOriginalRecipient: person@outlook.example
{RETURNED}

Hello

--b--
"""


def test_junk_report_of_outlook_is_a_complaint() -> None:
    notice = parse(OUTLOOK.encode())
    assert (notice.notice, notice.order_id, notice.reason) == ("complained", ORDER, "abuse")
    assert flaw_of(OUTLOOK.replace("X-HmXmr", "X-Other").encode()) == "not_a_report"


GLOBAL_STATUS = """\
Reporting-MTA: dns; mx.example

Final-Recipient: utf-8; pérsön@example.com
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 <pérsön@example.com>: kein Böstfach
"""


def encoded(media_type: str, encoding: str, content: str) -> str:
    """A part in an encoding that RFC 6533 allows for its types."""
    raw = content.encode()
    body = {
        "8bit": lambda: raw,
        "base64": lambda: base64.encodebytes(raw),
        "quoted-printable": lambda: quopri.encodestring(raw),
    }[encoding]()
    return f"Content-Type: {media_type}\nContent-Transfer-Encoding: {encoding}\n\n{body.decode()}"


@pytest.mark.parametrize("encoding", ["8bit", "base64", "quoted-printable"])
@pytest.mark.parametrize("returned", ["message/global-headers", "message/global", "message/rfc822"])
def test_internationalized_report_is_read_in_every_encoding(encoding: str, returned: str) -> None:
    """RFC 6533."""
    parts = (
        encoded("message/global-delivery-status", encoding, GLOBAL_STATUS),
        encoded(returned, encoding, f"From: Bö <bö@nest.example>\n{RETURNED}\n\nHällo\n"),
    )
    head = 'To: mail@nest.example\nContent-Type: multipart/report; report-type=global-delivery-status; boundary="b"\n\n'
    report = head + "".join(f"--b\n{part}\n" for part in parts) + "--b--\n"
    notice = parse(report.encode())
    assert (notice.notice, notice.status, notice.order_id) == ("bounced", "5.1.1", ORDER)
    assert "example.com" not in notice.reason


@pytest.mark.parametrize(
    "status_part",
    [
        # A space before the colon.
        "Reporting-MTA : dns; mx.example\nAction : failed\nStatus : 5.1.1\nDiagnostic-Code : smtp;550 5.1.1 gone",
        # A byte order mark.
        "\ufeffAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 gone",
        # Lines that were not folded.
        "Reporting-MTA: dns; mx\n\nDiagnostic-Code: smtp; 550-5.1.1 gone\n550 final\nStatus: 5.1.1\nAction: failed",
        # A comment after the code.
        "Reporting-MTA: dns; mx.example\n\nAction: failed\nStatus: 5.1.1 (no mailbox)\nDiagnostic-Code: smtp; 550 gone",
    ],
)
def test_sloppy_delivery_status_is_read(status_part: str) -> None:
    head = f'To: mail+{ORDER}@nest.example\nContent-Type: multipart/report; boundary="b"\n\n'
    notice = parse(f"{head}--b\nContent-Type: message/delivery-status\n\n{status_part}\n\n--b--\n".encode())
    assert (notice.notice, notice.status, notice.order_id) == ("bounced", "5.1.1", ORDER)
    assert notice.reason.startswith("550")


@pytest.mark.parametrize(
    "returned",
    [
        f"Content-Type: text/rfc822-header\n\nMessage-ID: {ORDER}@nest.example\n",
        f"Content-Type: text/rfc822-headers\n\nMessage-ID: <{ORDER}@nest.example> (sent by relay)\n",
        f"Content-Type: text/rfc822-headers\n\nReturn-Path: <mail+{ORDER}@nest.example>\nMessage-ID: <1@x.example>\n",
        f"Content-Type: message/rfc822\n\nFrom somebody Sat Nov 21 06:05:00 2026\n{RETURNED}\n\nHello\n",
        f"Content-Type: message/feedback-report\n\nOriginal-Mail-From: <mail+{ORDER}@nest.example>\n",
    ],
)
def test_mail_is_found_in_whatever_is_returned(returned: str) -> None:
    assert parse(dsn(returned=returned)).order_id == ORDER


def test_mail_is_found_by_what_the_report_answers_to() -> None:
    report = dsn(returned="Content-Type: text/plain\n\nnothing")
    assert parse(f"In-Reply-To: <{ORDER}@nest.example>\r\n".encode() + report).order_id == ORDER
    assert parse(f"References: <1@x.example> <{ORDER}@nest.example>\r\n".encode() + report).order_id == ORDER


SES_ID = "0100018f3c2b7d5e-6a1b2c3d-0000-4000-8000-0123456789ab-000000"


def test_replaced_message_id_names_the_mail_of_its_provider() -> None:
    returned = f"Content-Type: text/rfc822-headers\n\nMessage-ID: <{SES_ID}@email.amazonses.com>\n"
    notice = parse_report(dsn(returned=returned))
    assert isinstance(notice, RecordProviderNotice)
    assert (notice.key, notice.provider_id, notice.notice, notice.status) == (SES_ID, SES_ID, "bounced", "5.1.1")


def test_other_mails_give_no_notice() -> None:
    out_of_office = MIMEText("I'm on holiday until Monday.")
    out_of_office["To"] = f"mail+{ORDER}@nest.example"
    other = dsn(returned="Content-Type: text/rfc822-headers\n\nMessage-ID: <1@elsewhere.example>\n")
    for mail, flaw in (
        (out_of_office.as_bytes(), "not_a_report"),
        (other, "no_mail"),
        (b"", "not_a_report"),
        (b"\xff\xfe\x00", "not_a_report"),
        (b"Content-Type: message/delivery-status\r\n\r\n", "not_final"),
    ):
        assert flaw_of(mail) == flaw


def test_deeply_nested_parts_give_no_notice() -> None:
    deep = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(5000))
    assert flaw_of(deep) == "not_a_report"
    assert flaw_of(b"Content-Type: message/rfc822\r\n\r\n" * 15_000) == "not_a_report"


def test_report_within_the_returned_mail_gives_no_notice() -> None:
    quoted = f"Content-Type: message/rfc822\n\n{RETURNED}{dsn().decode('latin-1')}"
    assert flaw_of(dsn(action="delayed", returned=quoted.replace("--b", "--c").replace('"b"', '"c"'))) == "not_final"


def test_attached_report_gives_no_notice() -> None:
    mail = MIMEMultipart()
    mail["To"] = f"mail+{ORDER}@nest.example"
    mail.attach(MIMEApplication(dsn(), "octet-stream"))
    assert flaw_of(mail.as_bytes()) == "not_a_report"


@given(st.binary(max_size=400), st.integers(0, 1500), st.integers(0, 40))
def test_damaged_report_never_raises(garbage: bytes, place: int, cut: int) -> None:
    whole = dsn()
    try:
        notice = parse_report(whole[:place] + garbage + whole[place + cut :])
    except IgnoredReport:
        return
    assert re.fullmatch("[0-9A-Za-z._=+-]{16,128}", notice.key)


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
