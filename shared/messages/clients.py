"""What operators order and ask about clients: the apps that may log people in."""

from typing import Annotated

from pydantic import ConfigDict, Field, RootModel

from shared.messages.auth import ClientView, NonEmpty
from shared.messages.message import Command, Query


class UpdateClient(Command, wire="auth.update-client"):
    """Change an app; what is left out stays. ``key`` is its id. Reply: ClientView.

    Refused: ``client_not_found``, ``client_changed``, ``invalid_redirect_uri``.
    """

    id: NonEmpty
    version: int | None = None
    """The version that was read: refused if somebody changed it since. Null to write over whatever is there."""
    name: NonEmpty | None = None
    redirect_uris: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """All of them, in place of those it had. Links that are out lead to where they were ordered for."""
    disabled: bool | None = None
    """Whether nobody is to be logged in by it any more. Gateways refuse its tokens within a second, or, when it is
    enabled again, take those that have not expired."""


class ListClients(Query, wire="auth.list-clients", audited=True):
    """All apps that may log people in. Reply: ClientList."""


class ClientList(RootModel[tuple[ClientView, ...]]):
    """A JSON list, the oldest first; 1,000 at most."""

    model_config = ConfigDict(frozen=True)
