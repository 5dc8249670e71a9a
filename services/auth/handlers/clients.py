"""How does an app become known?"""

from __future__ import annotations

from services.auth.audit import audited
from services.auth.context import Auth
from services.auth.models.clients import Client
from shared.messages.auth import AnnounceClient, ClientAnnounced, ClientCreated, ClientView, CreateClient
from shared.work import Work


@audited("create_client")
async def create_client(command: CreateClient, work: Work, auth: Auth) -> ClientView:
    """Register an app that may log people in.

    Raises:
        InvalidRedirectUri: one that no app may have.
        ClientAlreadyExists: the id is taken, as the index says at the commit.
    """
    client = Client.register(command.name, command.redirect_uris, id=command.id or work.new_id("client"), at=work.now)
    auth.clients.add(client, work)
    work.note(client_id=client.id)
    work.publish(ClientCreated(key=client.id, client_id=client.id))
    work.publish(announced(client))
    return ClientView(
        id=client.id,
        name=client.name,
        redirect_uris=client.redirect_uris,
        disabled=client.disabled_at is not None,
        created_at=client.created_at,
        updated_at=client.updated_at,
    )


async def announce_client(command: AnnounceClient, work: Work, auth: Auth) -> None:
    """Tell the gateways about an app, as it is now: an order of each start, should Kafka have lost what it was told.

    Raises:
        ClientNotFound: it is gone.
    """
    work.publish(announced(await auth.clients.get(command.client_id)))


def announced(client: Client) -> ClientAnnounced:
    """What gateways must know of an app; to be published with every change of it."""
    return ClientAnnounced(
        key=client.id, client_id=client.id, name=client.name, disabled=client.disabled_at is not None
    )
