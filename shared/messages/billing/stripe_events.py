"""What Stripe tells us: its events, as they came in."""

from shared.messages.message import Command, Event, Part


class StripeObject(Part):
    """What an event is about. Only which object it is: all else of it is old by the time it is read."""

    object: str = ""
    """``subscription``, ``charge``, …"""
    id: str = ""
    """Empty for the few that have none, as an upcoming invoice."""


class StripeEventData(Part):
    """The ``data`` of an event."""

    object: StripeObject


class StripeEvent(Event, wire="stripe.event", topic="stripe.webhooks"):
    """A snapshot event (https://docs.stripe.com/api/events/object); the record's body is Stripe's own JSON.

    A hint that something changed: what is true now is read from Stripe.
    """

    id: str
    type: str
    created: int = 0
    """Unix seconds; neither orders nor tells two events apart."""
    livemode: bool
    account: str | None = None
    data: StripeEventData


class RelatedObject(Part):
    """What a thin event is about."""

    id: str = ""
    """Empty for those of which an account has just one, as its balance settings."""
    type: str
    """As ``object`` in a snapshot: ``payment_intent``."""


class StripeThinEvent(Event, wire="stripe.thin-event", topic="stripe.webhooks"):
    """A thin event (https://docs.stripe.com/event-destinations#thin-payload): what happened, and to which object.

    The record's body is Stripe's own JSON.
    """

    id: str
    type: str
    """That of the snapshot event beside it with ``v1.`` in front, or one of its own."""
    livemode: bool
    context: str | None = None
    """The account it comes from, of several that share an endpoint."""
    related_object: RelatedObject | None = None
    snapshot_event: str | None = None
    """The id of the snapshot event that tells of the same."""


class StripeCommand(Command):
    """What every order says that waits while Stripe can't be asked."""

    attempt: int = 1
    """Counts from 1; grows while Stripe can't be asked."""


class StripeReread(StripeCommand):
    """What every order to read something of Stripe's says that an event may hint at."""

    event_id: str | None = None
    """The event kept by billing that hints at it: nothing is read when a reading that began later has covered it."""
