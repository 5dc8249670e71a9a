"""Which addresses does it do harm to write to, and what is sent there all the same?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.messages.mailer.errors import RecipientComplained
from shared.messages.mailer.mails import Template
from shared.messages.mailer.suppressions import Cause

ASKED_FOR: Final[frozenset[Template]] = frozenset({"magic-link", "trial-magic-link"})
"""What a person asks for at the address itself, just now. It goes out whatever is known of the address: one bounce
years ago must not lock anybody out for good, and how often it is sent is limited where it is asked for."""
DEAD_ADDRESS: Final = re.compile(r"5\.(?:1\.(?:1|2|3|6|10)|2\.1)(?!\d)")
"""Enhanced status codes (RFC 3463, RFC 7505) of a mailbox or domain that is not there, has moved away, or is switched
off. Others are about a full mailbox, a size, or us: one mistake of ours would silence everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """An address that gets nothing but what is asked for at it.

    Attributes:
        id: the address's keyed hash; the address itself is nowhere.
        cause: mail to it came back for good, or its reader called some of it spam.
        delivery_id: the mail that showed it.
        since: when that became known.
        version: guards the next write.
    """

    id: str
    cause: Cause
    delivery_id: str
    since: datetime
    version: int = 1

    def outweighs(self, known: Suppression | None) -> bool:
        """Whether this is to be kept in place of what was known: a complaint is a person's wish."""
        return known is None or (self.cause == "complaint" and known.cause == "bounce")

    def ended_by(self, delivered_order: datetime) -> bool:
        """Whether the delivery of a mail ordered then shows that the address takes mail again.

        A complaint is not taken back by reading on.
        """
        return self.cause == "bounce" and delivered_order > self.since

    def must_be_liftable(self, *, although_complained: bool) -> None:
        """Nothing, if operators may lift it.

        Args:
            although_complained: they say that the person who complained wants mails again.

        Raises:
            RecipientComplained: they don't, and somebody has.
        """
        if self.cause == "complaint" and not although_complained:
            raise RecipientComplained


def shows_dead_address(status: str | None) -> bool:
    """Whether a bounce is about the address for good; one without a status code (None) is taken to be."""
    return status is None or DEAD_ADDRESS.fullmatch(status) is not None
