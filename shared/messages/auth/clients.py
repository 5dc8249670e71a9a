"""What operators order and ask about clients: the apps that may log people in."""

from typing import Annotated

from pydantic import ConfigDict, Field, RootModel

from shared.messages.auth.errors import ClientAlreadyExists, ClientChanged, ClientNotFound, InvalidRedirectUri
from shared.messages.mailer.branding import ClientLooks, ClientLooksView
from shared.messages.message import Command, Event, Moment, NonEmpty, Query, Reply


class ClientView(Reply):
    """An app that may log people in."""

    id: str
    name: str
    redirect_uris: tuple[str, ...]
    disabled: bool
    created_at: Moment
    updated_at: Moment
    version: int = 1
    """Counts the changes, from 1."""


class CreateClient(
    Command,
    wire="auth.create-client",
    reply=ClientView,
    refuses=(
        InvalidRedirectUri,
        ClientAlreadyExists,
    ),
):
    """Register an app that may log people in."""

    name: NonEmpty
    redirect_uris: Annotated[tuple[str, ...], Field(min_length=1)]
    """Matched exactly (RFC 9700 section 4.1.3)."""
    id: NonEmpty | None = None
    """An id of the operator's choice; made up when left out."""


class ClientCreated(Event, wire="auth.client-created"):
    """An app was registered. ``key`` is the client's id."""

    client_id: str


class AnnounceClient(Command, wire="auth.announce-client", refuses=(ClientNotFound,)):
    """Tell the gateways about an app, as it is now. ``key`` is its id."""

    client_id: str


class ClientAnnounced(Event, wire="auth.client-announced", topic="auth.clients"):
    """An app whose access tokens gateways may take. ``key`` is its id; the topic is compacted."""

    client_id: str
    name: str
    disabled: bool
    """Then its tokens are refused."""


class UpdateClient(
    Command,
    wire="auth.update-client",
    reply=ClientView,
    refuses=(
        ClientNotFound,
        ClientChanged,
        InvalidRedirectUri,
    ),
):
    """Change an app; what is left out stays. ``key`` is its id."""

    id: NonEmpty
    version: int | None = None
    """The version that was read: refused if somebody changed it since. Null to write over whatever is there."""
    name: NonEmpty | None = None
    redirect_uris: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """All of them, in place of those it had. Links that are out lead to where they were ordered for."""
    disabled: bool | None = None
    """Whether nobody is to be logged in by it any more. Gateways refuse its tokens within a second, or, when it is
    enabled again, take those that have not expired."""


class ClientList(RootModel[tuple[ClientView, ...]]):
    """A JSON list, the oldest first; 1,000 at most."""

    model_config = ConfigDict(frozen=True)


class ListClients(Query, wire="auth.list-clients", audited=True, reply=ClientList):
    """All apps that may log people in."""


class SetClientLooks(
    ClientLooks, Command, wire="auth.set-client-looks", reply=ClientLooksView, refuses=(ClientNotFound,)
):
    """Say anew how the mails and texts of a client appear: what is left out is as the settings say again."""

    client_id: NonEmpty
