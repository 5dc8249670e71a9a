"""Stripe's webhook events, and base classes of the commands that call Stripe."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from shared.messages.message import Command, Event, Part

LATEST_SECOND: Final = 253_402_300_799
"""The last second of the year 9999, in Unix time."""


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else ""


def _second(value: Any) -> Any:
    return value if isinstance(value, int) and 0 <= value <= LATEST_SECOND else 0


Text = Annotated[str, BeforeValidator(_text)]
"""A text that Stripe leaves out, or sends as null, in some objects and API versions; then it is empty."""
Second = Annotated[int, BeforeValidator(_second)]
"""Unix time in seconds; 0 if Stripe sends none."""


class StripeObject(Part):
    """The object of a snapshot event. Only its identity is read: the rest is outdated when the event is handled."""

    object: Text = ""
    """Stripe's type: ``subscription``, ``charge``, …"""
    id: Text = ""
    """Empty for the few objects without an ID, such as an upcoming invoice or a balance."""


class StripeEventData(Part):
    """The ``data`` of a snapshot event."""

    object: StripeObject


class StripeEvent(Event, wire="stripe.event", topic="stripe.webhooks"):
    """A snapshot event (https://docs.stripe.com/api/events/object); the record's value is Stripe's JSON.

    It only triggers a re-read of its object from Stripe. So the API version of the webhook endpoint does not matter:
    only the fields below are read, which all versions have had alike.
    """

    id: str
    type: str
    created: Second = 0
    """Unix time in seconds. It neither orders events nor identifies one."""
    livemode: bool
    account: Text = ""
    """Connected account that the event is of; empty for our own account."""
    user_id: Text = ""
    """As ``account``, at API versions before 2017-05-25
    (https://docs.stripe.com/changelog/2017-05-25/events-connect-specify-originating-account)."""
    context: Text = ""
    """As ``account``, if several accounts share an event destination."""
    data: StripeEventData

    @property
    def of_account(self) -> str:
        """The account that the event is of; empty for our own."""
        return self.account or self.user_id or self.context


class RelatedObject(Part):
    """The object of a thin event."""

    id: Text = ""
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
