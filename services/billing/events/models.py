"""Event rows: Stripe events as billing stores them, pending until the object they are about was read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Self

from shared.documents import stored_as
from shared.ids import derived_message_id
from shared.messages.billing.history import ListedStripeEvent
from shared.messages.billing.stripe_events import StripeEvent, StripeObject

Outcome = Literal[
    "read", "missing", "refused", "nobody", "erased", "other_account", "other_product", "other_mode", "not_followed"
]
"""Why an event is no longer pending.

- ``read``: its object was read from Stripe after the event was received, and recorded.
- ``missing``: Stripe has no such object, in this mode.
- ``refused``: Stripe refused to show its object, and an operator was alarmed. A replay reads it again.
- ``nobody``: no user was found for its object, or auth has named none within a day.
- ``erased``: it is about an erased user.
- ``other_account``: it is of a connected account.
- ``other_product``: its object is of a product that Nest does not sell.
- ``other_mode``: it belongs to the other mode, live or test.
- ``not_followed``: billing does not handle its type, or records nothing of its object.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """A stored Stripe event: its type and the ID of its object, without personal data.

    Attributes:
        id: derived from the account, the mode and Stripe's event ID, so that an event has one row.
        account: empty for our own account; the ID of a connected account otherwise.
        stp_event_id: ``evt_…``.
        object_id: Stripe's ID of the object, or ``entitlements_of`` a customer; empty for the few objects without one.
        payment_intent_id: the payment intent to which the object was found to belong, and for whose reading the event
            waits; None if it waits for the reading of its object.
        made_at: when Stripe created the event, in whole seconds.
        received_at: when billing first received it.
        handled_at: when its outcome was recorded; None while it is pending.
        expires_at: when MongoDB deletes the row; None while it is pending.
    """

    id: str
    account: str
    livemode: bool
    stp_event_id: str
    type: str
    object_type: str
    object_id: str
    payment_intent_id: str | None = stored_as("leadsTo", default=None)
    made_at: datetime
    received_at: datetime
    handled_at: datetime | None = None
    outcome: Outcome | None = None
    expires_at: datetime | None = None
    version: int = 1

    @classmethod
    def of(cls, event: StripeEvent, *, at: datetime) -> Self:
        """The pending row of an event received now."""
        account = event.of_account
        return cls(
            id=derived_message_id("stripe", account, "live" if event.livemode else "test", event.id),
            account=account,
            livemode=event.livemode,
            stp_event_id=event.id,
            type=event.type,
            object_type=event.data.object.object,
            object_id=_object_id(event.data.object),
            # Thin events have no creation time in Unix seconds.
            made_at=datetime.fromtimestamp(event.created, UTC) if event.created else at,
            received_at=at,
        )

    @property
    def pending(self) -> bool:
        """Whether its object has not been read since it was received."""
        return self.handled_at is None

    def waiting_for_payment(self, intent_id: str) -> Self:
        """The row, waiting for the reading of the payment intent to which its object belongs."""
        return replace(self, payment_intent_id=intent_id)

    def view(self) -> ListedStripeEvent:
        """The view for operators."""
        return ListedStripeEvent(
            stp_event_id=self.stp_event_id,
            type=self.type,
            object_type=self.object_type,
            object_id=self.object_id.removeprefix(entitlements_of("")),
            made_at=self.made_at,
            received_at=self.received_at,
            handled_at=self.handled_at,
            outcome=self.outcome,
        )

    def settled(self, outcome: Outcome, *, at: datetime, retention: timedelta) -> Self:
        """The row with its outcome, no longer pending, to be deleted after ``retention``."""
        return replace(self, handled_at=at, outcome=outcome, expires_at=at + retention)

    def reopened(self) -> Self:
        """The row, pending again."""
        return replace(self, payment_intent_id=None, handled_at=None, outcome=None, expires_at=None)


ENTITLEMENTS: Final = "entitlements.active_entitlement_summary"
"""Stripe's type of the summary of a customer's active entitlements, which has no ID."""


def entitlements_of(customer_id: str) -> str:
    """``object_id`` of the events about a customer's active entitlements, unlike that of those about the customer."""
    return f"entitlements:{customer_id}"


def _object_id(subject: StripeObject) -> str:
    return entitlements_of(subject.customer) if subject.object == ENTITLEMENTS and subject.customer else subject.id
