"""Outgoing webhooks: endpoints of clients, the deliveries of events to them, and the commands that deliver."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.errors import InvalidCursor
from shared.messages.mailer.errors import (
    TooManyWebhookEndpoints,
    TooManyWebhookSecrets,
    WebhookEndpointChanged,
    WebhookEndpointDisabled,
    WebhookEndpointNotFound,
    WebhookUrlRefused,
)
from shared.messages.mailer.webhook_events import EventChoice, EventType, WebhookEvent
from shared.messages.message import Command, OperatorList, Part, Reply
from shared.messages.types import (
    AnyId,
    BaseVersion,
    CreatedAt,
    Cursor,
    CursorText,
    Limit,
    Many,
    Moment,
    NextCursor,
    NonEmpty,
    Sealed,
    Since,
    Until,
    UpdatedAt,
    Uri,
    Version,
)

MAX_TYPES = 50
MAX_OVERLAP_HOURS = 168
EndpointId = Annotated[NonEmpty, Field(description="ID of the endpoint.")]
EventChoices = Annotated[tuple[EventChoice, ...], Field(min_length=1, max_length=MAX_TYPES)]
Url = Annotated[Uri, Field(min_length=1)]
Description = Annotated[str, Field(max_length=256)]
DisabledReason = Literal["operator", "failing", "gone"]
DeliveryState = Literal["pending", "delivered", "failed"]
ErrorClass = Literal[
    "status", "redirect", "timeout", "dns", "connection", "tls", "address_refused", "invalid_response", "paused"
]


class WebhookSecretView(Part):
    """A secret that signs the webhooks of an endpoint. The secret itself is shown once, when it is created."""

    id: str
    """ID of the secret."""
    created_at: CreatedAt
    expires_at: Moment | None
    """When it stops signing; null for the newest secret."""


class WebhookEndpointView(Reply):
    """An endpoint: a URL of your app that events are posted to."""

    id: str
    """ID of the endpoint."""
    client_id: str | None
    """Client whose users' events it gets; null for the events of all users."""
    url: str
    """URL that events are posted to."""
    types: Many[str]
    """Types of the events that it gets."""
    description: str
    """Text for people."""
    enabled: bool
    """Whether events are recorded for it and delivered."""
    disabled_reason: DisabledReason | None
    """``operator``; ``failing`` after three days without a success; ``gone`` after the status 410. Null if enabled."""
    disabled_at: Moment | None
    """When it was disabled; null if it is enabled."""
    secrets: Many[WebhookSecretView]
    """Secrets that sign now, newest first."""
    pending: int
    """Events that wait for their delivery; 1,000 at most are counted."""
    last_delivered_at: Moment | None
    """Time of the last success within the retention; null if there was none."""
    created_at: CreatedAt
    updated_at: UpdatedAt
    version: Version = 1


class NewWebhookSecretView(WebhookEndpointView):
    """An endpoint with a secret that was just created."""

    secret: str
    """``whsec_`` and base64. It is shown here only."""


class WebhookEndpointList(Reply):
    """Endpoints, oldest first."""

    endpoints: Many[WebhookEndpointView]
    """The endpoints; all of them, since their number is limited."""


class AddWebhookEndpoint(
    Command,
    wire="mailer.add-webhook-endpoint",
    reply=NewWebhookSecretView,
    reply_sealed=True,
    refuses=(WebhookUrlRefused, TooManyWebhookEndpoints, WebhookEndpointNotFound),
):
    """Store a new endpoint. Sent by auth, which has checked the client. The key is the client's ID."""

    url: str
    types: Many[str]
    description: str
    client_id: str | None


class UpdateWebhookEndpoint(
    Command,
    wire="mailer.update-webhook-endpoint",
    audited=True,
    reply=WebhookEndpointView,
    refuses=(WebhookEndpointNotFound, WebhookEndpointChanged, WebhookUrlRefused),
):
    """Update an endpoint. Omitted fields do not change."""

    id: EndpointId
    version: BaseVersion = None
    url: Url | None = None
    """New URL, under the same rules as for a new endpoint."""
    types: EventChoices | None = None
    """New list of types and families."""
    description: Description | None = None
    """New text for people."""
    enabled: bool | None = None
    """Whether events are recorded for it and delivered. A disabled endpoint gets no new events; those that were pending
    wait, and are delivered once it is enabled again."""


class ConfirmWebhookEndpoint(
    Command, wire="mailer.confirm-webhook-endpoint", reply=WebhookEndpointView, refuses=(WebhookEndpointNotFound,)
):
    """Reply with a changed endpoint, once every instance knows it. Sent by mailer."""

    endpoint_id: str


class ConfirmNewWebhookEndpoint(
    ConfirmWebhookEndpoint,
    wire="mailer.confirm-new-webhook-endpoint",
    reply=NewWebhookSecretView,
    reply_sealed=True,
):
    """As ConfirmWebhookEndpoint, for an endpoint that was just created."""

    secret: Sealed


class DeleteWebhookEndpoint(
    Command, wire="mailer.delete-webhook-endpoint", audited=True, refuses=(WebhookEndpointNotFound,)
):
    """Delete an endpoint, with its pending events and the log of its deliveries."""

    id: EndpointId


class ListWebhookEndpoints(OperatorList, wire="mailer.list-webhook-endpoints", audited=True, reply=WebhookEndpointList):
    """List the endpoints."""

    client_id: AnyId | None = None
    """Only endpoints of this client."""


class RollWebhookSecret(
    Command,
    wire="mailer.roll-webhook-secret",
    audited=True,
    reply=NewWebhookSecretView,
    reply_sealed=True,
    refuses=(WebhookEndpointNotFound, TooManyWebhookSecrets),
):
    """Create a new secret for an endpoint. For some hours the earlier ones sign too, so that none is missing."""

    id: EndpointId
    overlap_hours: Annotated[int, Field(ge=0, le=MAX_OVERLAP_HOURS)] = 24
    """Hours for which earlier secrets sign too; 0 if they are known to others."""


class WebhookAttemptView(Part):
    """An attempt to deliver an event. The response's body is not stored."""

    at: Moment
    """When the attempt began."""
    duration_ms: int
    """How long it took, in milliseconds."""
    status: int | None
    """HTTP status of the response; null if there was none."""
    error: ErrorClass | None
    """Kind of the failure; null for a success. ``paused``: the endpoint has failed repeatedly, and no request was
    sent."""


class WebhookDeliveryView(Part):
    """An event for one endpoint."""

    endpoint_id: str
    """ID of the endpoint."""
    event_id: str
    """ID of the event, the header ``webhook-id``."""
    type: str
    """Type of the event."""
    user_id: str | None
    """ID of the user it is about; null if there is none."""
    state: DeliveryState
    """``pending`` until the endpoint accepts it, then ``delivered``; ``failed`` after three days of retries."""
    created_at: CreatedAt
    updated_at: UpdatedAt
    next_attempt_at: Moment | None
    """Time of the next attempt; null if none is planned, or if an earlier event of the same user is not delivered."""
    attempts: Many[WebhookAttemptView]
    """The latest attempts, oldest first; 50 at most."""


class WebhookDeliveriesView(Reply):
    """A page of deliveries."""

    deliveries: Many[WebhookDeliveryView]
    """The deliveries, newest first."""
    next_cursor: NextCursor


class ListWebhookDeliveries(
    OperatorList,
    wire="mailer.list-webhook-deliveries",
    audited=True,
    reply=WebhookDeliveriesView,
    refuses=(InvalidCursor,),
):
    """List the deliveries of events to endpoints, with their attempts.

    They are kept for ``NEST_WEBHOOK_DAYS`` days after their last change.
    """

    endpoint_id: AnyId | None = None
    """Only deliveries to this endpoint."""
    event_id: AnyId | None = None
    """Only deliveries of this event."""
    user_id: AnyId | None = None
    """Only events about this user."""
    type: AnyId | None = None
    """Only events of this type."""
    state: DeliveryState | None = None
    """Only deliveries in this state."""
    since: Since = None
    until: Until = None
    limit: Limit = 100
    cursor: Cursor[CursorText] = None


class WebhookReplayView(Reply):
    """Result of ``replay_webhooks``."""

    replayed: int
    """Number of events that are delivered again; 100,000 at most are counted."""


class WebhookSelection(Command):
    """Fields that select deliveries of an endpoint. All that are given must match."""

    event_id: AnyId | None = None
    """Only this event."""
    type: EventType | None = None
    """Only events of this type."""
    state: DeliveryState | None = None
    """Only deliveries in this state. Pending ones are attempted at once."""
    since: Since = None
    until: Until = None


class ReplayWebhooks(
    WebhookSelection,
    wire="mailer.replay-webhooks",
    audited=True,
    reply=WebhookReplayView,
    refuses=(WebhookEndpointNotFound, WebhookEndpointDisabled),
):
    """Deliver events to an endpoint again.

    They are selected by ID, type, state or time; at least one of them is required. A replayed event has the same
    ``webhook-id`` as before.
    """

    endpoint_id: EndpointId

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if not any((self.event_id, self.type, self.state, self.since, self.until)):
            raise ValueError("give event_id, type, state, since or until")
        return self


class ContinueWebhookReplay(WebhookSelection, wire="mailer.continue-webhook-replay"):
    """Replay the next deliveries of a selection. The key is the endpoint's ID."""

    endpoint_id: str
    ordered_at: Moment
    """Deliveries that were added later are not replayed."""
    cursor: str | None = None
    """Position after the last replayed delivery; None at the start. A replay that an earlier release began, which
    counted by ID in ``after``, starts again."""


class WebhookTestView(Reply):
    """Result of ``send_test_webhook``."""

    event_id: str
    """ID of the event, the header ``webhook-id``."""
    attempt: WebhookAttemptView
    """The attempt, which is not repeated."""


class SendTestWebhook(
    Command,
    wire="mailer.send-test-webhook",
    audited=True,
    reply=WebhookTestView,
    refuses=(WebhookEndpointNotFound, WebhookEndpointDisabled),
):
    """Send a test event to an endpoint, and return its answer.

    The event has the type ``webhook.test``, and is not sent again.
    """

    id: EndpointId


class OfferWebhook(Command, wire="mailer.offer-webhook"):
    """Deliver an event to the endpoints of clients. Sent by auth. The key is the user's ID."""

    event: WebhookEvent
    client_ids: Many[str]
    """Clients whose endpoints get it."""


class AttemptWebhook(Command, wire="mailer.attempt-webhook"):
    """Attempt a delivery, if it is the first pending one of its subject at its endpoint. The key names both."""

    endpoint_id: str
    subject: str
    delivery_id: str
    attempt: int
    """Number of the attempt, from 1. An attempt that was made already is not repeated."""


class ResumeWebhooks(Command, wire="mailer.resume-webhooks"):
    """Attempt the first pending delivery of each subject at an enabled endpoint. The key is the endpoint's ID."""

    endpoint_id: str
    after: str | None = None
    """Last subject that was resumed; None at the start."""


class RemoveWebhooks(Command, wire="mailer.remove-webhooks"):
    """Remove the deliveries of a deleted endpoint. The key is the endpoint's ID."""

    endpoint_id: str


class DisableWebhookEndpoint(Command, wire="mailer.disable-webhook-endpoint"):
    """Disable an endpoint that fails or is gone, and notify the operators. The key is the endpoint's ID."""

    endpoint_id: str
    reason: Literal["failing", "gone"]
    version: int
    """Version of the endpoint that failed. A later one was changed or enabled since."""
