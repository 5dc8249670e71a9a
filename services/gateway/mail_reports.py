"""Mail reports: delivery status notifications (RFC 3464) and complaints (RFC 5965) as notices to the mailer.

Anybody can send such a report. It has an effect only if it names the ID of a mail's command, which only the recipient
and the mail servers on the way know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email import message_from_bytes, message_from_string, policy
from email.message import Message
from typing import Final

from shared.mail import redact_addresses
from shared.messages.mailer.suppressions import NoticeKind, RecordMailNotice

_RETURN_PATH: Final = re.compile(r"\+([0-9a-f]{32})@")
"""Command ID in the return path, which is different for each mail (VERP)."""
_MESSAGE_ID: Final = re.compile(r"<([0-9a-f]{32})@[^<>\s]+>")
_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")
_RECIPIENT_HEADERS: Final = ("delivered-to", "x-original-to", "to")
_ACTIONS: Final[dict[str, NoticeKind]] = {"failed": "bounced", "delivered": "delivered"}
"""Actions of RFC 3464 section 2.3.3; ``delayed``, ``relayed`` and ``expanded`` are not final."""
_COMPLAINTS: Final = frozenset({"abuse", "fraud", "opt-out"})


def order_id_of(message_id: str) -> str | None:
    """ID of the command that sent the mail with this Message-ID; None if Nest did not send it."""
    match = _MESSAGE_ID.fullmatch(message_id if message_id.startswith("<") else f"<{message_id}>")
    return None if match is None else match.group(1)


def parse_report(report: bytes) -> RecordMailNotice | None:
    """Parse a report.

    Args:
        report: the whole mail.

    Returns:
        The notice; None if the mail is not a report, reports nothing final, or does not name a mail of Nest.
    """
    try:
        mail = message_from_bytes(report, policy=policy.compat32)
        parts = list(mail.walk())
    except RecursionError:
        # No mail server nests parts so deeply.
        return None
    outcome = _delivery_status(parts) or _complaint(parts)
    order_id = _order_id(mail, parts)
    if outcome is None or order_id is None:
        return None
    kind, status, reason = outcome
    return RecordMailNotice(key=order_id, order_id=order_id, notice=kind, status=status, reason=reason)


def _delivery_status(parts: Iterable[Message]) -> tuple[NoticeKind, str | None, str] | None:
    for part in parts:
        if part.get_content_type() != "message/delivery-status":
            continue
        for block in _blocks(part):
            kind = _ACTIONS.get(_field(block, "action").lower())
            if kind is not None:
                status = _STATUS.match(_field(block, "status"))
                # The part before the semicolon is the protocol: ``smtp; 550 5.1.1 …``.
                diagnostic = _field(block, "diagnostic-code").partition(";")[2].strip()
                return kind, None if status is None else status.group(), redact_addresses(diagnostic)
    return None


def _complaint(parts: Iterable[Message]) -> tuple[NoticeKind, None, str] | None:
    for part in parts:
        if part.get_content_type() == "message/feedback-report":
            for block in _blocks(part):
                kind = _field(block, "feedback-type").lower()
                if kind in _COMPLAINTS:
                    return "complained", None, kind
    return None


def _order_id(mail: Message, parts: Iterable[Message]) -> str | None:
    """Command ID from the address that the report was sent to, else from the returned mail or its headers."""
    for name in _RECIPIENT_HEADERS:
        for value in mail.get_all(name, ()):
            if match := _RETURN_PATH.search(str(value)):
                return match.group(1)
    for part in parts:
        match part.get_content_type():
            case "text/rfc822-headers":
                returned = [message_from_string(_text(part), policy=policy.compat32)]
            case "message/rfc822":
                returned = _blocks(part)
            case _:
                continue
        for each in returned:
            if order_id := order_id_of(_field(each, "message-id")):
                return order_id
    return None


def _blocks(part: Message) -> list[Message]:
    payload = part.get_payload()
    return [each for each in payload if isinstance(each, Message)] if isinstance(payload, list) else []


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""


def _field(block: Message, name: str) -> str:
    return " ".join(str(block.get(name, "")).split())
