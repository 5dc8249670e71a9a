"""Entries of the billing history, each made from the event that announces the change."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Self

from shared.messages import Message
from shared.messages.billing.disputes import DisputeEvent
from shared.messages.billing.history import BillingHistoryEntry, CreditNoteEvent
from shared.messages.billing.payments import PaymentEvent
from shared.messages.billing.subscriptions import SubscriptionEvent
from shared.messages.billing.trials import TrialStarted

KEPT: Final = timedelta(days=10 * 365)
"""Retention of entries from their recording, as of books in most countries. An erasure removes them earlier."""
RECORDED: Final = (SubscriptionEvent, PaymentEvent, DisputeEvent, CreditNoteEvent, TrialStarted)
"""Events of which the history has an entry, if they have a user."""
_FIELDS: Final = frozenset(BillingHistoryEntry.model_fields) - {"id", "at", "event"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """A change of a user's money or access.

    Attributes:
        at: when the change happened according to Stripe; when it was recorded if the event does not say.
        id: the message ID of the event, so that one change has one entry.
        event: wire name of the event without ``billing.``.
        details: the fields of the event that ``BillingHistoryEntry`` has.
        expires_at: when MongoDB deletes it.
    """

    id: str
    user_id: str
    at: datetime
    event: str
    details: dict[str, Any] = field(default_factory=dict)
    expires_at: datetime
    version: int = 1

    @classmethod
    def of(cls, message: Message, message_id: str, *, recorded_at: datetime) -> Self | None:
        """The entry of an event; None for messages that are not part of the history or have no user."""
        if not isinstance(message, RECORDED) or message.user_id is None:
            return None
        at = recorded_at if isinstance(message, TrialStarted) else message.happened_at or recorded_at
        return cls(
            id=message_id,
            user_id=message.user_id,
            at=at,
            event=message.wire.removeprefix("billing."),
            details=message.model_dump(mode="json", include=set(_FIELDS)),
            expires_at=recorded_at + KEPT,
        )

    def view(self) -> BillingHistoryEntry:
        """The view for operators."""
        return BillingHistoryEntry.model_validate({**self.details, "id": self.id, "at": self.at, "event": self.event})
