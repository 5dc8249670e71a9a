"""Mail reports: delivery status notifications (RFC 3464) and complaints (RFC 5965) as commands to the mailer.

Also reads their internationalized forms (RFC 6533) and the complaints of Outlook's Junk Mail Reporting Program.

Anybody can send such a report. It has an effect only if it names the ID of a mail's command, or the ID that a provider
gave to the mail. Only the recipient and the mail servers on the way know either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email import policy
from email.message import Message
from email.parser import BytesParser
from typing import Final, Literal

from shared.mail import provider_id_in, redact_addresses
from shared.messages.mailer.suppressions import NoticeKind, RecordMailNotice, RecordProviderNotice

MailNoticeCommand = RecordMailNotice | RecordProviderNotice
Fields = dict[str, str]
"""Values of a block of header fields by their names in lower case."""

_RETURN_PATH: Final = re.compile(r"\+([0-9a-f]{32}@[^<>\s]+)")
"""Tag and domain of the return path, which is different for each mail (VERP); they are also the mail's Message-ID."""
_MESSAGE_ID: Final = re.compile(r"<([0-9a-f]{32})@[^<>\s]+>")
_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")
_FIELD: Final = re.compile(r"([!-9;-~]+)[ \t]*:(.*)")
_DIAGNOSTIC_TYPE: Final = re.compile(r"^\s*[A-Za-z][A-Za-z0-9._-]*\s*;\s*")
"""The protocol before a diagnostic code, ``smtp; 550 5.1.1 …`` (RFC 3464 section 2.3.6). Some servers leave it out."""
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_RECIPIENT_HEADERS: Final = ("delivered-to", "x-original-to", "to")
_DELIVERY_STATUS: Final = frozenset({"message/delivery-status", "message/global-delivery-status"})
_FEEDBACK: Final = frozenset({"message/feedback-report"})
_RETURNED: Final = frozenset(
    # Some generators of complaints write the singular.
    {"message/rfc822", "message/global", "message/global-headers", "text/rfc822-headers", "text/rfc822-header"}
)
_ACTIONS: Final[dict[str, NoticeKind]] = {"failed": "bounced", "delivered": "delivered"}
"""Actions of RFC 3464 section 2.3.3; ``delayed``, ``relayed`` and ``expanded`` are not final."""
_COMPLAINTS: Final = frozenset({"abuse", "fraud", "opt-out"})
_OUTLOOK_COMPLAINT: Final = "x-hmxmroriginalrecipient"
"""Header that Outlook adds to a mail that its reader reported as junk, and sends back without a part of RFC 5965."""


class IgnoredReport(Exception):
    """A report without effect.

    ``reason``: ``not_a_report``: another mail; ``not_final``: neither a bounce nor a delivery nor a complaint;
    ``no_mail``: it names no mail that Nest may have sent.
    """

    def __init__(self, reason: Literal["not_a_report", "not_final", "no_mail"]) -> None:
        super().__init__(reason)
        self.reason = reason


class _Part(Message):
    """A part of a report, whose nested messages stay text.

    RFC 6533 allows base64 and quoted-printable for them, which the parser would read as their text. It would also read
    reports within the returned mail.
    """

    def get_content_type(self) -> str:
        """Return the type with ``text`` instead of ``message``, which the parser reads as a leaf."""
        return re.sub("^message/", "text/", self.declared_type)

    @property
    def declared_type(self) -> str:
        """The type of the part's header."""
        return super().get_content_type()


def notice_of(message_id: str, kind: NoticeKind, status: str | None = None, reason: str = "") -> MailNoticeCommand:
    """Return the command that reports the outcome of a mail.

    Args:
        message_id: the mail's Message-ID, with or without angle brackets: Nest's own, or the one a provider replaced it
            with, whose domain may be missing.
        kind: the outcome.
        status: an enhanced status code (RFC 3463).
        reason: the provider's text, with or without the type of a diagnostic code; addresses in it are removed.

    Raises:
        IgnoredReport: the ID is neither.
    """
    reason = redact_addresses(_DIAGNOSTIC_TYPE.sub("", reason))
    if order_id := order_id_of(message_id):
        return RecordMailNotice(key=order_id, order_id=order_id, notice=kind, status=status, reason=reason)
    provider_id = provider_id_in(message_id)
    if provider_id is None:
        raise IgnoredReport("no_mail")
    return RecordProviderNotice(key=provider_id, provider_id=provider_id, notice=kind, status=status, reason=reason)


def order_id_of(message_id: str) -> str | None:
    """ID of the command that sent the mail with this Message-ID; None if it is not one of Nest's."""
    match = _MESSAGE_ID.fullmatch(message_id if message_id.startswith("<") else f"<{message_id}>")
    return None if match is None else match.group(1)


def parse_report(report: bytes) -> MailNoticeCommand:
    """Parse a report.

    Args:
        report: the whole mail.

    Raises:
        IgnoredReport: the mail is not a report, reports nothing final, or does not name a mail of Nest.
    """
    try:
        mail = BytesParser(_Part, policy=policy.compat32).parsebytes(report)
        parts = [part for part in mail.walk() if isinstance(part, _Part)]
    except RecursionError:
        # No mail server nests parts so deeply.
        raise IgnoredReport("not_a_report") from None
    returned = [fields for part in parts if part.declared_type in _RETURNED for fields in _blocks(part)[:1]]
    kind, status, reason = _delivery_status(parts) or _complaint(parts, returned) or _not_final(parts)
    return notice_of(_message_id(mail, parts, returned), kind, status, reason)


def _delivery_status(parts: Iterable[_Part]) -> tuple[NoticeKind, str | None, str] | None:
    for fields in _blocks_of(parts, _DELIVERY_STATUS):
        action = fields.get("action", "").lower().split()
        kind = _ACTIONS.get(action[0]) if action else None
        if kind is not None:
            status = _STATUS.match(fields.get("status", ""))
            return kind, None if status is None else status.group(), fields.get("diagnostic-code", "")
    return None


def _complaint(parts: Iterable[_Part], returned: Iterable[Fields]) -> tuple[NoticeKind, None, str] | None:
    for fields in _blocks_of(parts, _FEEDBACK):
        kind = fields.get("feedback-type", "").lower()
        if kind in _COMPLAINTS:
            return "complained", None, kind
    if any(_OUTLOOK_COMPLAINT in fields for fields in returned):
        return "complained", None, "abuse"
    return None


def _not_final(parts: Iterable[_Part]) -> tuple[NoticeKind, None, str]:
    is_report = any(part.declared_type in _DELIVERY_STATUS | _FEEDBACK for part in parts)
    raise IgnoredReport("not_final" if is_report else "not_a_report")


def _message_id(mail: Message, parts: Iterable[_Part], returned: Iterable[Fields]) -> str:
    """Message-ID of the reported mail, or another ID that names it; empty if there is none.

    Looked for in the return path, to which the report was sent or which it quotes, then in the returned mail, and then
    in the headers of the report: some servers return nothing but answer to the mail.
    """
    paths = [str(value) for name in _RECIPIENT_HEADERS for value in mail.get_all(name, ())]
    paths += [fields.get("original-mail-from", "") for fields in _blocks_of(parts, _FEEDBACK)]
    paths += [fields.get("return-path", "") for fields in returned]
    for path in paths:
        if match := _RETURN_PATH.search(path):
            return match.group(1)
    # Some servers add a comment.
    ids = [each for fields in returned for each in fields.get("message-id", "").split()]
    ids += [each for name in ("in-reply-to", "references") for each in str(mail.get(name, "")).split()]
    return next(filter(order_id_of, ids), next(filter(provider_id_in, ids), ""))


def _blocks_of(parts: Iterable[_Part], types: frozenset[str]) -> Iterator[Fields]:
    for part in parts:
        if part.declared_type in types:
            yield from _blocks(part)


def _blocks(part: _Part) -> list[Fields]:
    """Blocks of header fields in a part, decoded. A line without a field's name continues the field before it."""
    payload = part.get_payload(decode=True)
    text = payload.decode("utf-8-sig", "replace") if isinstance(payload, bytes) else ""
    blocks: list[dict[str, list[str]]] = [{}]
    # The lines of the current field; those of a repeated field and those before the first one are dropped.
    value: list[str] = []
    for line in _LINE_END.split(text):
        if not line.strip():
            blocks.append({})
            value = []
        elif (match := _FIELD.match(line)) is not None:
            value = [match.group(2)]
            blocks[-1].setdefault(match.group(1).lower(), value)
        else:
            value.append(line)
    return [{name: " ".join(" ".join(lines).split()) for name, lines in block.items()} for block in blocks if block]
