"""Clients: the registered apps that users log in to."""

from typing import Annotated

from pydantic import ConfigDict, Field, RootModel

from shared.messages.auth.errors import ClientAlreadyExists, ClientChanged, ClientNotFound, InvalidRedirectUri
from shared.messages.mailer.branding import ClientLooks, ClientLooksView
from shared.messages.message import Command, Event, Moment, NonEmpty, Query, Reply


class ClientView(Reply):
    """A client."""

    id: str
    """ID of the client."""
    name: str
    """Name of the app."""
    redirect_uris: tuple[str, ...]
    """URIs that magic links may lead to."""
    disabled: bool
    """Whether logins through the client are refused."""
    created_at: Moment
    """When the client was registered."""
    updated_at: Moment
    """When the client last changed."""
    version: int = 1
    """Number of the current version, from 1. Every change increments it."""


class CreateClient(
    Command, wire="auth.create-client", reply=ClientView, refuses=(InvalidRedirectUri, ClientAlreadyExists)
):
    """Register a client."""

    name: NonEmpty
    """Name of the app."""
    redirect_uris: Annotated[tuple[str, ...], Field(min_length=1)]
    """URIs that magic links may lead to. Requests must match one exactly (RFC 9700 section 4.1.3)."""
    id: NonEmpty | None = None
    """ID of the client. Generated if omitted."""


# The ordering key is the client's ID.
class UpdateClient(
    Command,
    wire="auth.update-client",
    reply=ClientView,
    refuses=(ClientNotFound, ClientChanged, InvalidRedirectUri),
):
    """Update a client.

    Omitted fields do not change.
    """

    id: NonEmpty
    """ID of the client."""
    version: int | None = None
    """Version that the update is based on; it is refused if the client has changed since. Null to update any
    version."""
    name: NonEmpty | None = None
    """New name of the app."""
    redirect_uris: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """New list of redirect URIs. Links that were mailed before keep their target."""
    disabled: bool | None = None
    """Whether to refuse logins through the client. Gateways apply it within a second to access tokens that were issued
    before: they refuse them, or accept them again until they expire."""


class SetClientLooks(
    ClientLooks, Command, wire="auth.set-client-looks", reply=ClientLooksView, refuses=(ClientNotFound,)
):
    """Set the branding of a client's mails and texts.

    Replaces all fields: an omitted one gets the value of the deployment's settings.
    """

    client_id: NonEmpty
    """ID of the client."""


class ClientList(RootModel[tuple[ClientView, ...]]):
    """All clients, oldest first; 1,000 at most."""

    model_config = ConfigDict(frozen=True)


class ListClients(Query, wire="auth.list-clients", audited=True, reply=ClientList):
    """List all clients."""


class ClientCreated(Event, wire="auth.client-created"):
    """A client was registered. The key is the client's ID."""

    client_id: str


class AnnounceClient(Command, wire="auth.announce-client", refuses=(ClientNotFound,)):
    """Publish a client's current state as ClientAnnounced. The key is the client's ID."""

    client_id: str


class ClientAnnounced(Event, wire="auth.client-announced", topic="auth.clients"):
    """Current state of a client, for gateways. The key is the client's ID; the topic is compacted."""

    client_id: str
    name: str
    disabled: bool
    """Whether gateways refuse the client's access tokens."""
