"""Suppressed addresses: recipients that receive nothing but mail they request themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.messages.mailer.errors import RecipientComplained
from shared.messages.mailer.mails import Template
from shared.messages.mailer.suppressions import Cause

NEVER_SUPPRESSED: Final[frozenset[Template]] = frozenset({"magic-link", "trial-magic-link"})
"""Templates that the recipient has just requested. They are sent to suppressed addresses too: a bounce years ago must
not lock anybody out for good, and the requests themselves are rate-limited."""
DEAD_ADDRESS: Final = re.compile(r"5\.(?:1\.(?:1|2|3|6|10)|2\.1)(?!\d)")
"""Enhanced status codes (RFC 3463, RFC 7505) of a mailbox or domain that does not exist, has moved or is disabled.
Other codes are about a full mailbox, the size or the sender: an error of ours would suppress everybody."""


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


def shows_dead_address(status: str | None) -> bool:
    """Whether a bounce means that the address is dead; a bounce without a status code (None) is assumed to."""
    return status is None or DEAD_ADDRESS.fullmatch(status) is not None
