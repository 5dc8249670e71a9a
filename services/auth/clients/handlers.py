"""How does an app become known, and how is it changed?"""

from __future__ import annotations

from services.auth.audit.recorder import audited
from services.auth.clients.models import Client
from services.auth.context import Auth
from shared.bus.work import Work
from shared.messages.auth.clients import (
    AnnounceClient,
    ClientAnnounced,
    ClientCreated,
    ClientList,
    ClientView,
    CreateClient,
    ListClients,
    SetClientLooks,
    UpdateClient,
)
from shared.messages.mailer.branding import ClientLooks, RecordClientLooks


@audited("create_client")
async def create_client(command: CreateClient, work: Work, auth: Auth) -> ClientView:
    """Register an app that may log people in.

    Raises:
        InvalidRedirectUri: one that no app may have.
        ClientAlreadyExists: the id is taken, as the index says at the commit.
    """
    client = Client.register(command.name, command.redirect_uris, id=command.id or work.new_id("client"), at=work.now)
    auth.clients.add(client, work)
    work.annotate(client_id=client.id)
    work.publish(ClientCreated(key=client.id, client_id=client.id))
    work.publish(announced(client))
    return _view(client)


@audited("update_client")
async def update_client(command: UpdateClient, work: Work, auth: Auth) -> ClientView:
    """Change an app, and let every gateway know.

    Raises:
        ClientNotFound: there is none.
        ClientChanged: somebody was quicker.
        InvalidRedirectUri: one that no app may have.
    """
    held = await auth.clients.get(command.id)
    work.annotate(client_id=held.id)
    held.must_be(command.version)
    client = held.change(name=command.name, redirect_uris=command.redirect_uris, disabled=command.disabled, at=work.now)
    auth.clients.save(client, work)
    work.publish(announced(client))
    return _view(client).model_copy(update={"version": client.version + 1})


async def list_clients(_query: ListClients, _work: Work, auth: Auth) -> ClientList:
    """Every app there is, the oldest first."""
    return ClientList(tuple(map(_view, await auth.clients.all())))


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


def _view(client: Client) -> ClientView:
    return ClientView(
        id=client.id,
        name=client.name,
        redirect_uris=client.redirect_uris,
        disabled=client.disabled_at is not None,
        created_at=client.created_at,
        updated_at=client.updated_at,
        version=client.version,
    )


@audited("set_client_looks")
async def set_client_looks(command: SetClientLooks, work: Work, auth: Auth) -> None:
    """Have mailer record how the mails and texts of an app appear; mailer answers the caller.

    Raises:
        ClientNotFound: there is no such app.
    """
    client = await auth.clients.get(command.client_id)
    work.annotate(client_id=client.id)
    looks = ClientLooks(**{name: getattr(command, name) for name in ClientLooks.model_fields})
    work.forward(RecordClientLooks(key=client.id, client_id=client.id, looks=looks))
