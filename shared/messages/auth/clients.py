"""Clients: the registered apps that users log in to."""

from typing import Annotated

from pydantic import ConfigDict, Field, RootModel

from shared.messages.auth.errors import ClientAlreadyExists, ClientChanged, ClientNotFound, InvalidRedirectUri
from shared.messages.mailer.branding import ClientLooks, ClientLooksView
from shared.messages.message import Command, Event, OperatorList, Reply
from shared.messages.types import BaseVersion, ClientId, CreatedAt, Many, Name, NonEmpty, UpdatedAt, Uri, Version


class ClientView(Reply):
    """A client."""

    id: str
    """ID of the client."""
    name: str
    """Name of the app."""
    redirect_uris: Many[str]
    """URIs that magic links may lead to."""
    disabled: bool
    """Whether logins through the client are refused."""
    press_to_redeem: bool = False
    """Whether its magic links open a page with a button, which leads on to the redirect URI."""
    entitlements_claim: bool = False
    """Whether its access tokens have the claims ``ent`` and ``ent_v``."""
    created_at: CreatedAt
    updated_at: UpdatedAt
    version: Version = 1


class CreateClient(
    Command, wire="auth.create-client", reply=ClientView, refuses=(InvalidRedirectUri, ClientAlreadyExists)
):
    """Register a client."""

    name: Name
    """Name of the app."""
    redirect_uris: Annotated[tuple[Uri, ...], Field(min_length=1, max_length=100)]
    """URIs that magic links may lead to: `https://…`, loopback `http://127.0.0.1:8080/…`, or a scheme that is a domain
    in reverse, `com.example.app:/…` (RFC 8252 section 7); without user name, password and fragment. Requests must match
    one exactly (RFC 9700 section 4.1.3)."""
    id: NonEmpty | None = None
    """ID of the client. Generated if omitted."""
    press_to_redeem: bool = False
    """Whether magic links open a page of Nest with a button, which leads on to the redirect URI. Then a mail scanner
    that opens every link does not reach the app."""
    entitlements_claim: bool = False
    """Whether access tokens have the claims ``ent``, the lookup keys of the user's features, and ``ent_v``, a number
    that grows with each change of them."""


# The ordering key is the client's ID.
class UpdateClient(
    Command, wire="auth.update-client", reply=ClientView, refuses=(ClientNotFound, ClientChanged, InvalidRedirectUri)
):
    """Update a client. Omitted fields do not change. Logins use the change within a second."""

    id: ClientId
    version: BaseVersion = None
    name: Name | None = None
    """New name of the app."""
    redirect_uris: Annotated[tuple[Uri, ...], Field(min_length=1, max_length=100)] | None = None
    """New list of redirect URIs, under the same rules; those that the client has already may stay. Links that were
    mailed before keep their target."""
    disabled: bool | None = None
    """Whether to refuse logins through the client. Gateways apply it within a second to access tokens that were issued
    before: they refuse them, or accept them again until they expire."""
    press_to_redeem: bool | None = None
    """Whether magic links open a page of Nest with a button, which leads on to the redirect URI. Links that were mailed
    before do not change."""
    entitlements_claim: bool | None = None
    """Whether access tokens have the claims ``ent`` and ``ent_v``, from the next login or refresh on."""


class SetClientLooks(
    ClientLooks, Command, wire="auth.set-client-looks", reply=ClientLooksView, refuses=(ClientNotFound,)
):
    """Set the branding of a client's mails and texts.

    Replaces all fields: an omitted one gets the value of the deployment's settings.
    """

    client_id: ClientId


class ClientList(RootModel[Many[ClientView]]):
    """The oldest clients, in order of creation; 1,000 at most."""

    model_config = ConfigDict(frozen=True)


class ListClients(OperatorList, wire="auth.list-clients", audited=True, reply=ClientList):
    """List the clients. Returns the oldest 1,000."""


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
