"""Delivery of one mail or text: its state, its attempts and the retry schedule."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from shared.messages.mailer.mails import Template
from shared.messages.mailer.texts import TextTemplate

Channel = Literal["mail", "text"]
DeliveryState = Literal["queued", "handed_over", "delivered", "bounced", "failed", "suppressed"]
ReportKind = Literal["delivered", "bounced", "complained"]
"""What a mail provider reports about a mail that it accepted earlier."""
FIRST_PAUSE: Final = timedelta(seconds=5)
MAX_PAUSE: Final = timedelta(minutes=15)
RETRY_PERIOD: Final = timedelta(days=1)
"""How long a deferred mail is retried, counted from its order."""
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
    """The mail server or the text provider accepted the message and is responsible for it now."""

    answer: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """Temporary failure: the server said so or could not be reached. A retry may succeed."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Permanent failure: the server rejected the message, or the address or number is unusable.

    Attributes:
        reason: the server's answer.
        dead_address: whether no mailbox exists at the address, so that other mail would not arrive either.
    """

    reason: str
    dead_address: bool = False


SendOutcome = Accepted | Deferred | Rejected
"""Outcome of one attempt to send a mail or a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One mail or text to one recipient.

    Attributes:
        id: ``delivery_…``.
        channel: mail or text; deliveries stored before there were texts lack it.
        order_id: the message ID of the first order; retries share it, so one order is one delivery.
        state: ``queued`` until the server accepts it (``handed_over``) or the last attempt has failed (``failed``);
            ``suppressed`` if it is not attempted, because the address is on the suppression list. Reports of the
            provider make it ``delivered`` or ``bounced``.
        template: the template.
        client_id: the client whose branding it shows, if any.
        locale: the requested language, if any; deliveries stored before there were languages lack it.
        recipient: the address or number, sealed for the mailer; empty after an erasure.
        recipient_hash: a keyed hash of the recipient, for lookups.
        message_id: a mail's ``Message-ID`` or a text's order ID; the same in every attempt, so that copies can be
            recognised.
        attempts: number of attempts.
        reason: the last answer of the server, or the last report; None before the first.
        version: the version for optimistic locking.
    """

    id: str
    channel: Channel = "mail"
    order_id: str
    state: DeliveryState
    template: Template | TextTemplate
    client_id: str | None
    locale: str | None = None
    recipient: str
    recipient_hash: str
    message_id: str
    attempts: int
    reason: str | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def create(
        cls,
        *,
        channel: Channel,
        id: str,  # noqa: A002 -- the field's name
        order_id: str,
        template: Template | TextTemplate,
        client_id: str | None,
        locale: str | None = None,
        recipient: str,
        recipient_hash: str,
        message_id: str,
        at: datetime,
    ) -> Self:
        """Create the delivery of a new order."""
        return cls(
            id=id,
            channel=channel,
            order_id=order_id,
            state="queued",
            template=template,
            client_id=client_id,
            locale=locale,
            recipient=recipient,
            recipient_hash=recipient_hash,
            message_id=message_id,
            attempts=0,
            reason=None,
            created_at=at,
            updated_at=at,
        )

    @property
    def finished(self) -> bool:
        """Whether no attempt is left to make."""
        return self.state != "queued"

    def after(self, outcome: SendOutcome, *, at: datetime, until: datetime | None = None) -> Self:
        """Return the delivery after one more attempt.

        Args:
            outcome: the outcome of the attempt.
            at: the time of the attempt.
            until: the end of the retries; by default one day after the order.
        """
        attempted = replace(self, attempts=self.attempts + 1, updated_at=at)
        match outcome:
            case Accepted(answer):
                return replace(attempted, state="handed_over", reason=answer)
            case Rejected(reason=reason):
                return replace(attempted, state="failed", reason=reason)
            case Deferred(reason):
                expired = attempted.next_attempt() > (until or self.created_at + RETRY_PERIOD)
                return replace(attempted, state="failed" if expired else "queued", reason=reason)

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
        """Return the time of the next attempt: pauses double from 5 seconds to 15 minutes, with jitter of ±20 %.

        The jitter is derived from the order ID and the attempt: deliveries that were deferred together spread out, and
        the same attempt always yields the same time.
        """
        pause = min(FIRST_PAUSE * 2 ** min(self.attempts - 1, 20), MAX_PAUSE)
        fraction = hashlib.sha256(f"{self.order_id} {self.attempts}".encode()).digest()[0] / 255
        jittered: timedelta = pause * (0.8 + 0.4 * fraction)
        return self.updated_at + jittered
