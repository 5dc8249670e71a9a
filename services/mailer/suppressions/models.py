"""Suppressed addresses: recipients that receive nothing but mail they request themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.messages.mailer.errors import RecipientComplained
from shared.messages.mailer.mails import Template
from shared.messages.mailer.suppressions import Cause

NEVER_SUPPRESSED: Final[frozenset[Template]] = frozenset({"magic-link", "trial-magic-link", "password-reset"})
"""Templates that the recipient has just requested. They are sent to suppressed addresses too: a bounce years ago must
not lock anybody out for good, and the requests themselves are rate-limited."""
DEAD_ADDRESS: Final = re.compile(r"5\.(?:1\.(?:1|2|3|6|10|351)|2\.1)")
"""Enhanced status codes (RFC 3463, RFC 7505; 5.1.351: Exchange Online) of a mailbox or domain that does not exist, has
moved or is disabled. Other codes are about a full mailbox, the size or the sender: an error of ours would suppress
everybody."""
UNSPECIFIC: Final = re.compile(r"[245]\.[01]\.0")
"""Codes of a server that knows nothing more precise (RFC 3463 section 3.2): the diagnostic may (RFC 3464 section
2.3.6)."""
_HOST_SAID: Final = re.compile(r"^host \S+ said: ")
"""Postfix's words before a reply: ``host mx.example[192.0.2.1] said: 550 5.1.1 …``."""
_CODE_IN_REPLY: Final = re.compile(r"(?:^|^[245]\d\d[ -]+|[( -]#|[245]\d\d-['\"])#?([245]\.\d{1,3}\.\d{1,3})(?![\d.])")
"""An enhanced status code at the start of a reply (``550 5.1.1 …``, ``550 #5.1.0``), after a number sign as in qmail's
``(#5.1.1)``, or where Amazon SES quotes one: ``5.1.0 - Unknown address error 550-'5.1.1 …``."""
_DIRECTORY_BLOCK: Final = re.compile(r"recipient address(?:es)? rejected ?: access denied", re.IGNORECASE)
"""With 5.4.1, Exchange Online's reply for an address that its directory lacks (Directory-Based Edge Blocking)."""
_NOT_ABOUT_ADDRESS: Final = re.compile(
    r"^4\d\d\b|^552\b|too many|too (?:fast|quickly)|\brate\b|\blimit|exceed|this (?:hour|day)\b|quota|\bfull\b"
    r"|temporar|try (?:again )?later|spam|virus|black ?list|\bblock|reputation|quarantin|preferences|polic(?:y|ies)\b"
    r"|dmarc|\bdkim\b|\bspf\b|relaying|relay (?:not|access)|sender (?:address rejected|verif)|in reply to mail from",
    re.IGNORECASE,
)
"""Replies about our rate, our network, our address, the content or a full mailbox, which some servers send with the
code of a dead address, or a server in between has given one (``552`` is a full mailbox: RFC 5321 section 4.2.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """Entry of the suppression list.

    Attributes:
        id: the keyed hash of the address; the address itself is not stored.
        cause: a permanent bounce, or a complaint of the recipient.
        delivery_id: the delivery that bounced or that the recipient complained about.
        since: when the bounce or complaint was reported.
    """

    id: str
    cause: Cause
    delivery_id: str
    since: datetime
    version: int = 1

    def outweighs(self, stored: Suppression | None) -> bool:
        """Whether this entry replaces the stored one: a complaint replaces a bounce, since it is a person's wish."""
        return stored is None or (self.cause == "complaint" and stored.cause == "bounce")

    def ended_by_delivery(self, ordered_at: datetime) -> bool:
        """Whether the delivery of a mail that was ordered at this time ends a bounce; it never ends a complaint."""
        return self.cause == "bounce" and ordered_at > self.since

    def check_liftable(self, *, although_complained: bool) -> None:
        """Check that operators may lift the suppression.

        Raises:
            RecipientComplained: the recipient complained, and the operator did not confirm that they want mail again.
        """
        if self.cause == "complaint" and not although_complained:
            raise RecipientComplained


def precise_status(status: str | None, reply: str) -> str | None:
    """Return the status code of a bounce: that of the report, or, if it is missing or unspecific, that of the reply.

    Args:
        status: the enhanced status code of the report; None for a report without one.
        reply: the mail server's reply, with its basic code: ``550 5.1.1 no such user``.
    """
    if status is not None and not UNSPECIFIC.fullmatch(status):
        return status
    return _status_of(reply) or status


def shows_dead_address(reply: str, status: str | None = None, *, without_code: bool = False) -> bool:
    """Whether a mail server's reply, or the status code of a report about it, proves that the address is dead.

    Neither may speak of something else: servers send 5.1.1 for addresses that exist, and servers in between derive it
    from 550, the basic code of almost any refusal.

    Args:
        reply: the reply, with its basic code; empty if it is unknown.
        status: the enhanced status code of the report, if any.
        without_code: the result if neither has a code.
    """
    if _NOT_ABOUT_ADDRESS.search(_HOST_SAID.sub("", reply)):
        return False
    codes = [code for code in (status, _status_of(reply)) if code is not None]
    if "5.4.1" in codes and _DIRECTORY_BLOCK.search(reply):
        return True
    specific = [code for code in codes if not UNSPECIFIC.fullmatch(code)]
    if not specific:
        return without_code and not codes
    return all(DEAD_ADDRESS.fullmatch(code) for code in specific)


def _status_of(reply: str) -> str | None:
    """Return the first enhanced status code in a reply, a specific one if there is one."""
    codes = _CODE_IN_REPLY.findall(_HOST_SAID.sub("", reply))
    return next((code for code in codes if not UNSPECIFIC.fullmatch(code)), codes[0] if codes else None)
