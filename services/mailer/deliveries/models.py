"""Delivery of one mail or text: its state and attempts; outcomes and pauses of retries, also used by consents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from shared.documents import stored_as
from shared.messages.mailer.deliveries import DeliveryState, Medium
from shared.messages.mailer.mails import Template
from shared.messages.mailer.texts import TextTemplate

ReportKind = Literal["delivered", "bounced", "complained"]
"""What a mail provider reports about a mail that it accepted earlier."""
FIRST_PAUSE: Final = timedelta(seconds=5)
MAX_PAUSE: Final = timedelta(minutes=15)
RETRY_PERIOD: Final = timedelta(days=1)
"""How long a deferred mail is retried, counted from its order."""
UNKNOWN_PAUSES: Final = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=2))
"""Shortest pauses after each lost answer of the mail server. The first retry is early enough for a magic link. Each may
add a copy of the mail, so there are no more than these."""
_RANK: Final[dict[DeliveryState, int]] = {
    "queued": 0,
    "handed_over": 1,
    "delivered": 2,
    # A provider may report the delivery to another server, which bounces the mail afterwards.
    "bounced": 3,
    "failed": 4,
    "suppressed": 4,
}
"""A state changes to a higher rank only, in whichever order reports arrive."""
_REPORTED_STATE: Final[dict[ReportKind, DeliveryState]] = {
    "delivered": "delivered",
    "bounced": "bounced",
    # A complaint implies that the mail arrived.
    "complained": "delivered",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server or provider accepted the request and is responsible for it now.

    ``provider_id``: the ID in a mail server's answer, with which it may have replaced the Message-ID.
    """

    answer: str = ""
    provider_id: str | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """Temporary failure, for example an outage or a rejected login of ours: a retry may succeed.

    The request may have taken effect nevertheless. ``unknown``: a mail server received the whole mail and its answer
    was lost, so a retry probably adds a copy.
    """

    reason: str
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class AccountRefused(Deferred):
    """The provider refuses our account, whatever the request is: retried until an operator has corrected it."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Permanent failure: the server or provider rejected the request, or the address or number is unusable.

    ``dead_address``: no mailbox exists at the address, so other mail would not arrive either.
    """

    reason: str
    dead_address: bool = False


Outcome = Accepted | Deferred | Rejected
"""Outcome of one attempt to send a mail or a text, or to sync a consent."""


def retry_pause(key: str, attempt: int, *, first: timedelta, longest: timedelta) -> timedelta:
    """Return the pause after an attempt: doubled by each attempt, with jitter of ±20 %.

    The jitter is derived from the key: requests that failed together spread out, and the same attempt always has the
    same pause.
    """
    fraction = hashlib.sha256(f"{key} {attempt}".encode()).digest()[0] / 255
    pause: timedelta = min(first * 2 ** min(attempt - 1, 20), longest) * (0.8 + 0.4 * fraction)
    return pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One mail or text to one recipient.

    Attributes:
        id: ``delivery_…``.
        medium: mail or text; deliveries stored before there were texts lack it.
        order_id: the message ID of the first order; retries share it, so one order is one delivery.
        state: ``queued`` until the server accepts it (``handed_over``) or the last attempt has failed (``failed``);
            ``suppressed`` if it is not attempted, because the address is on the suppression list. Reports of the
            provider make it ``delivered`` or ``bounced``.
        client_id: the client whose branding it shows, if any.
        locale: the requested language, if any; deliveries stored before there were languages lack it.
        recipient: the address or number, sealed for the mailer; empty after an erasure.
        recipient_hash: a keyed hash of the recipient, for lookups.
        message_id: a mail's ``Message-ID`` or a text's order ID; the same in every attempt, so that copies can be
            recognised.
        provider_id: the ID that the mail server gave to an accepted mail, if its answer has one; deliveries stored
            before these were read lack it.
        unknown_outcomes: how many attempts the server may have accepted, since its answer was lost; deliveries stored
            before these were counted lack it.
        reason: the last answer of the server, or the last report; None before the first.
        branded: whether later mails to the recipient may show the branding of its client. Anybody can order a link, so
            that of a link counts from its redemption on. Deliveries stored before links were distinguished lack it.
        redeemed_at: when its link was redeemed.
    """

    id: str
    medium: Medium = stored_as("channel", default="mail")
    order_id: str
    state: DeliveryState = "queued"
    template: Template | TextTemplate
    client_id: str | None
    locale: str | None = None
    recipient: str
    recipient_hash: str
    message_id: str
    provider_id: str | None = None
    attempts: int = 0
    unknown_outcomes: int = 0
    reason: str | None = None
    branded: bool = True
    redeemed_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @property
    def branded_at(self) -> datetime:
        """Since when later mails may show its branding, if they may."""
        return self.redeemed_at or self.created_at

    def redeem(self, *, at: datetime) -> Self:
        """Return the delivery of a link that was redeemed."""
        return replace(self, branded=True, redeemed_at=at)

    @property
    def finished(self) -> bool:
        """Whether no attempt is left to make."""
        return self.state != "queued"

    def after(self, outcome: Outcome, *, at: datetime, until: datetime | None = None) -> Self:
        """Return the delivery after one more attempt.

        Retries end at ``until``, by default one day after the order, and with the fourth unknown outcome.
        """
        attempted = replace(self, attempts=self.attempts + 1, updated_at=at)
        match outcome:
            case Accepted(answer, provider_id=provider_id):
                return replace(attempted, state="handed_over", reason=answer, provider_id=provider_id)
            case Rejected(reason=reason):
                return replace(attempted, state="failed", reason=reason)
            case Deferred(reason, unknown=unknown):
                deferred = replace(attempted, unknown_outcomes=self.unknown_outcomes + unknown, reason=reason)
                copied = deferred.unknown_outcomes > len(UNKNOWN_PAUSES)
                expired = copied or deferred.next_attempt() > (until or self.created_at + RETRY_PERIOD)
                return replace(deferred, state="failed" if expired else "queued")

    def suppressed(self, reason: str, *, at: datetime) -> Self:
        """Return the delivery, ended because the address is on the suppression list."""
        return replace(self, state="suppressed", reason=reason, updated_at=at)

    def reported(self, report: ReportKind, reason: str, *, at: datetime) -> Self:
        """Return the delivery after a provider's report; the same object if the report is older than the state."""
        state = _REPORTED_STATE[report]
        if _RANK[state] <= _RANK[self.state]:
            return self
        return replace(self, state=state, reason=reason or report, updated_at=at)

    def next_attempt(self) -> datetime:
        """Return the time of the next attempt.

        Pauses double from 5 seconds to 15 minutes. Once an outcome was unknown, they are at least ``UNKNOWN_PAUSES``.
        """
        pause = retry_pause(self.order_id, self.attempts, first=FIRST_PAUSE, longest=MAX_PAUSE)
        if self.unknown_outcomes:
            least = UNKNOWN_PAUSES[self.unknown_outcomes - 1]
            pause = max(pause, retry_pause(self.order_id, self.attempts, first=least, longest=least))
        return self.updated_at + pause
