"""How far is one of Stripe's events: is what it hints at read already, or only heard of?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from shared.ids import derived_message_id
from shared.messages.billing.stripe_events import StripeEvent

Outcome = Literal["read", "missing", "nobody", "erased", "other_mode", "not_followed"]
"""What came of an event.

- ``read``: what it is about was read from Stripe after it had come in, and stored.
- ``missing``: Stripe has no such object, in this mode.
- ``nobody``: no user can be found for it, or auth has named none within a day.
- ``erased``: it is of somebody who was erased, and must not come back.
- ``other_mode``: it is of the other mode, live or test.
- ``not_followed``: its type means nothing here.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """An event as it is kept: what it is about, never what it says of a person.

    Attributes:
        id: made of account, mode and Stripe's id, so that there is one for each.
        account: empty but for accounts that are connected to ours.
        stp_event_id: ``evt_…``.
        type: Stripe's word.
        object_type: Stripe's word for what it is about.
        object_id: its id; empty for the few that have none.
        leads_to: the payment intent that it was found to be about, whose reading it waits for; None where it waits for
            that of its object.
        made_at: when Stripe made it, in whole seconds.
        received_at: when it was first taken from the bus.
        handled_at: when it had its outcome; None while it waits.
        expires_at: when it is forgotten; None while it waits, however long.
    """

    id: str
    account: str
    livemode: bool
    stp_event_id: str
    type: str
    object_type: str
    object_id: str
    leads_to: str | None = None
    made_at: datetime
    received_at: datetime
    handled_at: datetime | None = None
    outcome: Outcome | None = None
    expires_at: datetime | None = None
    version: int = 1

    @classmethod
    def of(cls, event: StripeEvent, *, at: datetime) -> Self:
        """An event as it comes in, waiting."""
        account = event.account or ""
        return cls(
            id=derived_message_id("stripe", account, "live" if event.livemode else "test", event.id),
            account=account,
            livemode=event.livemode,
            stp_event_id=event.id,
            type=event.type,
            object_type=event.data.object.object,
            object_id=event.data.object.id,
            # Thin events don't come with Unix seconds.
            made_at=datetime.fromtimestamp(event.created, UTC) if event.created else at,
            received_at=at,
        )

    @property
    def waits(self) -> bool:
        """Whether it was heard of and nothing has come of it yet."""
        return self.handled_at is None

    def led_to(self, intent_id: str) -> Self:
        """The event once it is known which payment intent its object is part of."""
        return replace(self, leads_to=intent_id)

    def handled(self, outcome: Outcome, *, at: datetime, kept_for: timedelta) -> Self:
        """The event with what came of it, to be forgotten after a while."""
        return replace(self, handled_at=at, outcome=outcome, expires_at=at + kept_for)

    def reopened(self) -> Self:
        """The event as if nothing had come of it, to be looked at again."""
        return replace(self, leads_to=None, handled_at=None, outcome=None, expires_at=None)
