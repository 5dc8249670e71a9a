"""Rules of usage: which times Stripe accepts, and how long an identifier is remembered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, Self

from shared.messages.billing.usage import Usage

MAX_AGE: Final = timedelta(days=35)
MAX_AHEAD: Final = timedelta(minutes=5)
"""Stripe accepts usage of the past 35 days and of the next 5 minutes
(https://docs.stripe.com/api/billing/meter-event/create)."""
RETENTION: Final = timedelta(days=40)
"""How long rows are kept, and repeats found. Older usage is refused by its time."""
Outcome = Literal["sent", "refused", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """An entry of usage; ``id`` is the caller's identifier.

    Attributes:
        event_name: of the meter in Stripe.
        at: when it was used.
        settled_at: when its outcome was recorded; None while it waits to be sent.
        outcome: ``sent`` to Stripe, ``refused`` by Stripe, or ``expired``: it became too old while Stripe was away.
        expires_at: when MongoDB deletes the row.
    """

    id: str
    user_id: str
    stp_customer_id: str
    event_name: str
    value: int
    at: datetime
    accepted_at: datetime
    expires_at: datetime
    settled_at: datetime | None = None
    outcome: Outcome | None = None
    version: int = 1

    @classmethod
    def accept(cls, usage: Usage, customer_id: str, *, at: datetime) -> Self:
        """The row of an entry that is accepted now."""
        return cls(
            id=usage.identifier,
            user_id=usage.user_id,
            stp_customer_id=customer_id,
            event_name=usage.event_name,
            value=usage.value,
            at=usage.at or at,
            accepted_at=at,
            expires_at=at + RETENTION,
        )

    def repeated_by(self, usage: Usage) -> bool:
        """Whether an entry with this identifier is a repeat, and not another entry."""
        same = (self.user_id, self.event_name, self.value) == (usage.user_id, usage.event_name, usage.value)
        return same and usage.at in (None, self.at)

    def settled(self, outcome: Outcome, *, at: datetime) -> Self:
        """The row with its outcome."""
        return replace(self, outcome=outcome, settled_at=at)


def in_time(moment: datetime, *, at: datetime) -> bool:
    """Whether Stripe accepts usage of a moment."""
    return at - MAX_AGE <= moment <= at + MAX_AHEAD
