"""Deliveries: the mails and texts that Nest sent, and their outcome."""

from typing import Annotated, Literal

from shared.errors import InvalidCursor
from shared.messages.message import OperatorList, Part, Reply
from shared.messages.types import AnyId, Cursor, CursorText, Limit, Many, MaxPlain, Moment, NextCursor, Sealed

Recipient = Annotated[Sealed, MaxPlain(512)]
Medium = Literal["mail", "text"]
DeliveryState = Literal["queued", "handed_over", "delivered", "bounced", "failed", "suppressed"]


class DeliveryView(Part):
    """A mail or text. The recipient is stored encrypted and not shown."""

    id: str
    """ID of the delivery."""
    medium: Medium
    """``mail`` or ``text``."""
    state: DeliveryState
    """``queued`` until the server or provider accepts it, then ``handed_over``, then ``delivered`` or ``bounced`` if
    the provider reports it. ``failed`` if it was not accepted, ``suppressed`` if the address is on the suppression
    list."""
    template: str
    """Name of the template."""
    client_id: str | None
    """ID of the client that the mail or text was sent for; null if none."""
    locale: str | None
    """Language of the mail or text; null before it was rendered."""
    attempts: int
    """Number of attempts to hand it over."""
    reason: str | None
    """Latest response of the server or provider."""
    message_id: str
    """``Message-ID`` of a mail; ID of the command of a text."""
    created_at: Moment
    """When the mail or text was ordered."""
    updated_at: Moment
    """When its state last changed."""


class DeliveriesView(Reply):
    """A page of deliveries."""

    deliveries: Many[DeliveryView]
    """The deliveries, newest first."""
    next_cursor: NextCursor


class ListDeliveries(
    OperatorList, wire="mailer.list-deliveries", audited=True, reply=DeliveriesView, refuses=(InvalidCursor,)
):
    """List mails and texts with their outcome."""

    recipient: Recipient | None = None
    """Only deliveries to this email address or phone number."""
    medium: Medium | None = None
    """Only mails, or only texts."""
    state: DeliveryState | None = None
    """Only deliveries in this state."""
    template: AnyId | None = None
    """Only deliveries of this template."""
    client_id: AnyId | None = None
    """Only deliveries for this client."""
    since: Moment | None = None
    """Only deliveries ordered at this time or later."""
    until: Moment | None = None
    """Only deliveries ordered before this time."""
    limit: Limit = 100
    cursor: Cursor[CursorText] = None
