"""What is the delivery of a mail or a text, and how does it go on?"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from shared.messages.mailer.mails import Template
from shared.messages.mailer.texts import TextTemplate

Channel = Literal["mail", "text"]
DeliveryState = Literal["queued", "handed_over", "delivered", "bounced", "failed", "suppressed"]
NoticeEvent = Literal["delivered", "bounced", "complained"]
"""What a provider tells of a mail later on."""
FIRST_PAUSE: Final = timedelta(seconds=5)
LONGEST_PAUSE: Final = timedelta(minutes=15)
RETRIED_FOR: Final = timedelta(days=1)
"""How long a mail that the server does not take now is tried again, counted from its order."""
_LATER: Final[dict[DeliveryState, int]] = {
    "queued": 0,
    "handed_over": 1,
    "delivered": 2,
    # A provider may say that it has delivered to another server, which then sends the mail back.
    "bounced": 3,
    "failed": 4,
    "suppressed": 4,
}
"""States move to higher numbers only, whatever order news come in."""
_TOLD: Final[dict[NoticeEvent, DeliveryState]] = {
    "delivered": "delivered",
    "bounced": "bounced",
    # Nobody calls a mail spam that they have not got.
    "complained": "delivered",
}


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The mail server, or the provider of texts, has taken it and answers for it."""

    answer: str


@dataclass(frozen=True, slots=True)
class PutOff:
    """Not now: the server said so, or could not be reached. Another try may do."""

    reason: str


@dataclass(frozen=True, slots=True)
class TurnedDown:
    """Never: the server, or the address or number itself, said so for good.

    Attributes:
        reason: what it said.
        dead_address: whether nobody is at the address, so that no other mail would arrive there either.
    """

    reason: str
    dead_address: bool = False


HandOver = HandedOver | PutOff | TurnedDown
"""What became of one try to hand a mail or a text over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One mail or text on its way to one recipient.

    Attributes:
        id: ``delivery_…``.
        channel: which of the two.
        order_id: the id of the order for it; one order is one delivery.
        state: ``queued`` until the server has taken it (``handed_over``) or nobody tries any more (``failed``), or it
            is not even tried, since its recipient wants or gets no mail (``suppressed``). What the provider tells of
            it afterwards makes it ``delivered`` or ``bounced``.
        template: what it shows.
        client_id: whose looks it wears, if any.
        locale: the language that was asked for, if any was.
        recipient: the address or number, sealed for the mailer; empty once its owner was erased.
        recipient_hash: a keyed hash of it, to find its deliveries by.
        message_id: a mail's ``Message-ID``, a text's order; the same at every try, so that copies are known as one.
        attempts: how often it was tried.
        reason: what the server, or whoever told of it afterwards, said last; None before anything was said.
        version: guards the next write.
    """

    id: str
    channel: Channel
    order_id: str
    state: DeliveryState
    template: Template | TextTemplate
    client_id: str | None
    locale: str | None
    recipient: str
    recipient_hash: str
    message_id: str
    attempts: int
    reason: str | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @classmethod
    def order(
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
        """A mail or a text that was just ordered."""
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
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return self.state != "queued"

    def after(self, outcome: HandOver, *, at: datetime, until: datetime | None = None) -> Self:
        """The delivery after one more try.

        Args:
            outcome: what came of it.
            at: when it was.
            until: when nobody tries any more; by default a day after the order.
        """
        tried = replace(self, attempts=self.attempts + 1, updated_at=at)
        match outcome:
            case HandedOver(answer):
                return replace(tried, state="handed_over", reason=answer)
            case TurnedDown(reason=reason):
                return replace(tried, state="failed", reason=reason)
            case PutOff(reason):
                too_late = tried.next_try() > (until or self.created_at + RETRIED_FOR)
                return replace(tried, state="failed" if too_late else "queued", reason=reason)

    def suppressed(self, reason: str, *, at: datetime) -> Self:
        """The delivery that is not tried (again), and why."""
        return replace(self, state="suppressed", reason=reason, updated_at=at)

    def told(self, event: NoticeEvent, reason: str, *, at: datetime) -> Self:
        """The delivery after what the provider tells of it; the same where that is older news than is known."""
        state = _TOLD[event]
        if _LATER[state] <= _LATER[self.state]:
            return self
        return replace(self, state=state, reason=reason or event, updated_at=at)

    def next_try(self) -> datetime:
        """When a queued mail is tried again: after pauses that double up to a quarter of an hour, give or take a fifth.

        What shortens or lengthens them is drawn from the order, so that mails put off together come back apart, and
        that the same try always leads to the same time.
        """
        pause = min(FIRST_PAUSE * 2 ** min(self.attempts - 1, 20), LONGEST_PAUSE)
        drawn = hashlib.sha256(f"{self.order_id} {self.attempts}".encode()).digest()[0] / 255
        spread: timedelta = pause * (0.8 + 0.4 * drawn)
        return self.updated_at + spread
