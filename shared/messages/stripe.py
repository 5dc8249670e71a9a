"""What Stripe tells us: its events, as they came in."""

from typing import Any

from shared.messages.message import Event


class StripeEvent(Event, wire="stripe.event", topic="stripe.webhooks"):
    """A snapshot event (https://docs.stripe.com/api/events/object); the record's body is Stripe's own JSON.

    A hint that something changed: what is true now is read from Stripe.
    """

    id: str
    type: str
    created: int
    """Unix seconds; neither orders nor tells two events apart."""
    livemode: bool
    account: str | None = None
    data: dict[str, Any]
