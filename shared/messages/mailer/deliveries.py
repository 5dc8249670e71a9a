"""What the mailer is asked by operators about mails and texts: which went out, and what became of them?"""

from typing import Annotated, Literal

from pydantic import Field

from shared.messages.message import Moment, Part, Query, Reply, Sealed

Medium = Literal["mail", "text"]
DeliveryState = Literal["queued", "handed_over", "delivered", "bounced", "failed", "suppressed"]


class DeliveryView(Part):
    """A mail or a text, and what became of it. To whom it went is not told: that is kept sealed."""

    id: str
    medium: Medium
    state: DeliveryState
    template: str
    client_id: str | None
    locale: str | None
    attempts: int
    reason: str | None
    """What the server or the provider said last."""
    message_id: str
    """A mail's ``Message-ID``; a text's order."""
    created_at: Moment
    updated_at: Moment


class DeliveriesView(Reply):
    """A page of deliveries."""

    deliveries: tuple[DeliveryView, ...]
    next_cursor: str | None
    """What the next page is asked for with; None after the last."""


class ListDeliveries(Query, wire="mailer.list-deliveries", audited=True, reply=DeliveriesView):
    """What became of mails and texts."""

    recipient: Sealed | None = None
    """Only what went to this address or number."""
    medium: Medium | None = None
    state: DeliveryState | None = None
    template: str | None = None
    client_id: str | None = None
    since: Moment | None = None
    """Ordered then or later."""
    until: Moment | None = None
    """Ordered before."""
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    cursor: str | None = None
    """``next_cursor`` of the page before."""
