"""Stripe's webhook events, and base classes of the commands that call Stripe.

The gateway accepts a signed body only if ``parse_stripe_event`` does, and billing decodes the same classes from it. So
no accepted body becomes a dead letter.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, StrictBool, Tag, TypeAdapter, ValidationError

from shared.messages.message import Command, Event, Part

LATEST_SECOND: Final = 253_402_300_799
"""The last second of the year 9999, in Unix time."""
THIN: Final = "v2.core.event"
"""The ``object`` of a thin event."""
THIN_PREFIX: Final = "v1."
"""Prefix of the types of thin events that have a snapshot event
(https://docs.stripe.com/webhooks/migrate-snapshot-to-thin-events)."""
EVENT_TYPES: Final = frozenset(
    {
        "billing.meter.error_report_triggered",
        "billing.meter.no_meter_found",
        "charge.dispute.closed",
        "charge.dispute.created",
        "charge.dispute.funds_reinstated",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.updated",
        "charge.refund.updated",
        "charge.refunded",
        "checkout.session.async_payment_failed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.completed",
        "checkout.session.expired",
        "credit_note.created",
        "credit_note.updated",
        "credit_note.voided",
        "customer.subscription.created",
        "customer.subscription.deleted",
        "customer.subscription.paused",
        "customer.subscription.pending_update_applied",
        "customer.subscription.pending_update_expired",
        "customer.subscription.resumed",
        "customer.subscription.trial_will_end",
        "customer.subscription.updated",
        "customer.updated",
        "entitlements.active_entitlement_summary.updated",
        "invoice.payment_action_required",
        "invoice.payment_failed",
        "invoice_payment.paid",
        "payment_intent.canceled",
        "payment_intent.created",
        "payment_intent.payment_failed",
        "payment_intent.processing",
        "payment_intent.requires_action",
        "payment_intent.succeeded",
        "price.created",
        "price.deleted",
        "price.updated",
        "product.created",
        "product.deleted",
        "product.updated",
        "refund.created",
        "refund.failed",
        "refund.updated",
        "subscription_schedule.aborted",
        "subscription_schedule.canceled",
        "subscription_schedule.completed",
        "subscription_schedule.created",
        "subscription_schedule.expiring",
        "subscription_schedule.released",
        "subscription_schedule.updated",
    }
)
"""Types that billing handles. Events of other types are stored and ignored; metrics call them ``other``."""
MAX_STRIPE_TEXT: Final = 255
"""Maximum length of Stripe's IDs, in characters (https://docs.stripe.com/upgrades)."""


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else ""


def _customer(value: Any) -> Any:
    return _text(value.get("id") if isinstance(value, dict) else value)


def _second(value: Any) -> Any:
    return value if isinstance(value, int) and 0 <= value <= LATEST_SECOND else 0


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | None), Field(max_length=MAX_STRIPE_TEXT)]
"""A text that Stripe leaves out, or sends as null, in some objects and API versions; then it is empty."""
Second = Annotated[int, BeforeValidator(_second)]
"""Unix time in whole seconds; 0 if Stripe sends none."""
EventId = Annotated[str, Field(min_length=1, max_length=MAX_STRIPE_TEXT)]
EventType = Annotated[str, Field(max_length=MAX_STRIPE_TEXT)]


class StripeObject(Part):
    """The object of a snapshot event. Only its identity is read: the rest is outdated when the event is handled."""

    object: Text = ""
    """Stripe's type: ``subscription``, ``charge``, …"""
    id: Text = ""
    """Empty for the few objects without an ID, such as an upcoming invoice or a balance."""
    customer: Annotated[str, BeforeValidator(_customer), Field(max_length=MAX_STRIPE_TEXT)] = ""
    """ID of its customer; empty if it has none."""


class StripeEventData(Part):
    """The ``data`` of a snapshot event."""

    object: StripeObject


class _StripeBody(Event):
    """Fields of both kinds of events."""

    # Stripe may use the name of the field for something else; the record's key replaces it.
    key: Annotated[str, BeforeValidator(_text), Field(max_length=1_024)] = Field(default="", exclude=True, repr=False)
    id: EventId
    type: EventType
    livemode: StrictBool
    """Whether it is about real money."""


class StripeEvent(_StripeBody, wire="stripe.event", topic="stripe.webhooks"):
    """A snapshot event (https://docs.stripe.com/api/events/object); the record's value is Stripe's JSON.

    It only triggers a re-read of its object from Stripe. So the API version of the webhook endpoint does not matter:
    only the fields below are read, which all versions have had alike.
    """

    object: Literal["event"] = "event"
    """The oldest endpoints omit it."""
    created: Second = 0
    """Unix time in seconds. It neither orders events nor identifies one."""
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

    @property
    def ordering_key(self) -> str:
        """ID of the object's customer, so that all events of one customer stay in order; else the object's own ID."""
        subject = self.data.object
        return (subject.id if subject.object == "customer" else subject.customer) or subject.id


class RelatedObject(Part):
    """The object of a thin event."""

    id: Text = ""
    """Empty for objects that exist once per account, such as its balance settings."""
    type: EventType
    """Stripe's type, as ``object`` in a snapshot event: ``payment_intent``."""


class StripeThinEvent(_StripeBody, wire="stripe.thin-event", topic="stripe.webhooks"):
    """A thin event (https://docs.stripe.com/event-destinations#thin-payload); the record's value is Stripe's JSON.

    ``type`` is that of the corresponding snapshot event with the prefix ``v1.``, or a type of its own.
    """

    object: Literal["v2.core.event"] = THIN
    context: Text = ""
    """Account that the event is from, if several share a webhook endpoint."""
    related_object: RelatedObject | None = None
    snapshot_event: Text = ""
    """ID of the corresponding snapshot event."""

    @property
    def of_account(self) -> str:
        """The account that the event is of, if it is not our own."""
        return self.context

    @property
    def ordering_key(self) -> str:
        """ID of the object. A thin event does not name its customer."""
        return "" if self.related_object is None else self.related_object.id


def _kind(body: Any) -> str:
    return "thin" if isinstance(body, dict) and body.get("object") == THIN else "snapshot"


_EVENT: Final[TypeAdapter[StripeEvent | StripeThinEvent]] = TypeAdapter(
    Annotated[Annotated[StripeEvent, Tag("snapshot")] | Annotated[StripeThinEvent, Tag("thin")], Discriminator(_kind)],
    config=ConfigDict(defer_build=True),
)


def parse_stripe_event(body: bytes) -> StripeEvent | StripeThinEvent:
    """Parse the body of a webhook.

    The library's ``parse_event_notification`` is not used: it does not check types, takes a missing ``livemode`` for
    test mode, and fails with five different errors on a signed body that is not an event.

    Raises:
        ValidationError: the body is not an event.
    """
    try:
        # Most events. The choice between both kinds takes twice as long, since it needs a Python object of all JSON.
        return StripeEvent.model_validate_json(body)
    except ValidationError:
        return _EVENT.validate_json(body)


class StripeCommand(Command):
    """Fields shared by the commands that are rescheduled while Stripe is unavailable."""

    attempt: int = 1
    """Number of the attempt, from 1; incremented while Stripe is unavailable."""


class StripeReread(StripeCommand):
    """Fields shared by the commands that re-read a Stripe object after an event."""

    event_id: str | None = None
    """ID of the event row that caused the command. The object is not read if a reading that began later covers it."""
