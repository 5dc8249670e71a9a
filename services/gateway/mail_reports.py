"""What does a mail say that came back? Reports about a delivery (RFC 3464) and complaints (RFC 5965) as notices.

Such reports come from anybody. What they say counts only for a mail whose order's id they know, which nobody does but
whoever got the mail and the servers on its way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email import message_from_bytes, message_from_string, policy
from email.message import Message
from typing import Final

from shared.mail import redact_addresses
from shared.messages.mailer.mail_reports import NoticeKind, RecordMailNotice

_TAG: Final = re.compile(r"\+([0-9a-f]{32})@")
"""The order in a return address of its own (VERP)."""
_MESSAGE_ID: Final = re.compile(r"<([0-9a-f]{32})@[^<>\s]+>")
_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")
_ADDRESSED: Final = ("delivered-to", "x-original-to", "to")
_ACTIONS: Final[dict[str, NoticeKind]] = {"failed": "bounced", "delivered": "delivered"}
"""Of RFC 3464 section 2.3.3; ``delayed``, ``relayed`` and ``expanded`` settle nothing."""
_COMPLAINTS: Final = frozenset({"abuse", "fraud", "opt-out"})


def order_of(message_id: str) -> str | None:
    """The order whose mail has this Message-ID; None if it is none of ours."""
    found = _MESSAGE_ID.fullmatch(message_id if message_id.startswith("<") else f"<{message_id}>")
    return None if found is None else found.group(1)


def notice_in(report: bytes) -> RecordMailNotice | None:
    """What a report tells of a mail of ours; None if it is no report, tells nothing that counts, or not of which mail.

    Args:
        report: a whole mail, as it came.
    """
    try:
        mail = message_from_bytes(report, policy=policy.compat32)
        parts = list(mail.walk())
    except RecursionError:
        # Parts in parts in parts: no server writes that.
        return None
    told = _delivery_status(parts) or _complaint(parts)
    order_id = _order(mail, parts)
    if told is None or order_id is None:
        return None
    kind, status, reason = told
    return RecordMailNotice(key=order_id, order_id=order_id, notice=kind, status=status, reason=reason)


def _delivery_status(parts: Iterable[Message]) -> tuple[NoticeKind, str | None, str] | None:
    for part in parts:
        if part.get_content_type() != "message/delivery-status":
            continue
        for block in _blocks(part):
            kind = _ACTIONS.get(_field(block, "action").lower())
            if kind is not None:
                status = _STATUS.match(_field(block, "status"))
                # The first word names whose code it is: ``smtp; 550 5.1.1 …``.
                said = _field(block, "diagnostic-code").partition(";")[2].strip()
                return kind, None if status is None else status.group(), redact_addresses(said)
    return None


def _complaint(parts: Iterable[Message]) -> tuple[NoticeKind, None, str] | None:
    for part in parts:
        if part.get_content_type() == "message/feedback-report":
            for block in _blocks(part):
                kind = _field(block, "feedback-type").lower()
                if kind in _COMPLAINTS:
                    return "complained", None, kind
    return None


def _order(mail: Message, parts: Iterable[Message]) -> str | None:
    """By where the report was sent to; else by the mail, or its headers, that come with it."""
    for name in _ADDRESSED:
        for value in mail.get_all(name, ()):
            if tag := _TAG.search(str(value)):
                return tag.group(1)
    for part in parts:
        match part.get_content_type():
            case "text/rfc822-headers":
                returned = [message_from_string(_text(part), policy=policy.compat32)]
            case "message/rfc822":
                returned = _blocks(part)
            case _:
                continue
        for each in returned:
            if order_id := order_of(_field(each, "message-id")):
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
