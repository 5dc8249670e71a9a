"""Outgoing webhooks, as far as auth knows what they need: clients, and who has logged in to them."""

from shared.messages.auth.errors import ClientNotFound
from shared.messages.mailer.errors import TooManyWebhookEndpoints, WebhookEndpointNotFound, WebhookUrlRefused
from shared.messages.mailer.webhook_events import WebhookEvent
from shared.messages.mailer.webhooks import Description, EventChoices, NewWebhookSecretView, Url
from shared.messages.message import SERVICE_COMMANDS, Command, Event
from shared.messages.types import Many, Moment, NonEmpty


class CreateWebhookEndpoint(
    Command,
    wire="auth.create-webhook-endpoint",
    reply=NewWebhookSecretView,
    reply_sealed=True,
    refuses=(ClientNotFound, WebhookUrlRefused, TooManyWebhookEndpoints, WebhookEndpointNotFound),
):
    """Create an endpoint for webhooks.

    It gets the events that happen after the response: those of users who have logged in to its client within the last
    year, or of all users if it belongs to no client. The response contains the secret, which is not shown again.
    """

    url: Url
    """URL that events are posted to: ``https``, without user name and password. Private addresses and ``http`` are
    refused unless ``NEST_WEBHOOK_PRIVATE_ADDRESSES`` is set."""
    types: EventChoices
    """Types of the events that it gets: single types, ``payment.*`` for a family, ``*`` for all."""
    description: Description = ""
    """Text for people."""
    client_id: NonEmpty | None = None
    """Client whose users' events it gets. Omitted: the events of all users."""


class FindLoginClients(Command, wire="auth.find-login-clients", topic=SERVICE_COMMANDS):
    """Look up the clients that a user has logged in to, and send them back with the event. The key is the user's ID."""

    user_id: str
    event: WebhookEvent


class UserErased(Event, wire="auth.user-erased"):
    """The erasure of a user has begun. The key is the user's ID."""

    user_id: str
    client_ids: Many[str] = ()
    """Clients that the user had logged in to."""
    at: Moment
