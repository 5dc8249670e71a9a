"""Stripe's webhook events, and base classes of the commands that call Stripe."""

from shared.messages.message import Command, Event, Part


class StripeObject(Part):
    """The object of a snapshot event. Only its identity is read: the rest is outdated when the event is handled."""

    object: str = ""
    """Stripe's type: ``subscription``, ``charge``, …"""
    id: str = ""
    """Empty for the few objects without an ID, such as an upcoming invoice."""


class StripeEventData(Part):
    """The ``data`` of a snapshot event."""

    object: StripeObject


class StripeEvent(Event, wire="stripe.event", topic="stripe.webhooks"):
    """A snapshot event (https://docs.stripe.com/api/events/object); the record's value is Stripe's JSON.

    It only triggers a re-read of its object from Stripe.
    """

    id: str
    type: str
    created: int = 0
    """Unix time in seconds. It neither orders events nor identifies one."""
    livemode: bool
    account: str | None = None
    data: StripeEventData


class RelatedObject(Part):
    """The object of a thin event."""

    id: str = ""
    """Empty for objects that exist once per account, such as its balance settings."""
    type: str
    """Stripe's type, as ``object`` in a snapshot event: ``payment_intent``."""


class StripeThinEvent(Event, wire="stripe.thin-event", topic="stripe.webhooks"):
    """A thin event (https://docs.stripe.com/event-destinations#thin-payload); the record's value is Stripe's JSON."""

    id: str
    type: str
    """Type of the corresponding snapshot event with the prefix ``v1.``, or a type of its own."""
    livemode: bool
    context: str | None = None
    """Account that the event is from, if several share a webhook endpoint."""
    related_object: RelatedObject | None = None
    snapshot_event: str | None = None
    """ID of the corresponding snapshot event."""


class StripeCommand(Command):
    """Fields shared by the commands that are rescheduled while Stripe is unavailable."""

    attempt: int = 1
    """Number of the attempt, from 1; incremented while Stripe is unavailable."""


class StripeReread(StripeCommand):
    """Fields shared by the commands that re-read a Stripe object after an event."""

    event_id: str | None = None
    """ID of the event row that caused the command. The object is not read if a reading that began later covers it."""
