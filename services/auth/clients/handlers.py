"""Handlers that register, change and list clients."""

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
    """Register a client, and notify the gateways.

    Raises:
        InvalidRedirectUri: a redirect URI is not allowed.
        ClientAlreadyExists: the ID is taken, as the unique index finds at the commit.
    """
    client = Client.register(
        command.name,
        command.redirect_uris,
        id=command.id or work.new_id("client"),
        at=work.now,
        press_to_redeem=command.press_to_redeem,
        entitlements_claim=command.entitlements_claim,
    )
    auth.clients.add(client, work)
    work.annotate(client_id=client.id)
    work.publish(ClientCreated(key=client.id, client_id=client.id))
    work.publish(_announcement(client))
    return _view(client)


@audited("update_client")
async def update_client(command: UpdateClient, work: Work, auth: Auth) -> ClientView:
    """Change a client, and notify the gateways.

    Raises:
        ClientNotFound: there is no such client.
        ClientChanged: the client has been changed since the caller read it.
        InvalidRedirectUri: a redirect URI is not allowed.
    """
    stored = await auth.clients.get(command.id)
    work.annotate(client_id=stored.id)
    stored.must_have_version(command.version)
    client = stored.change(
        name=command.name,
        redirect_uris=command.redirect_uris,
        disabled=command.disabled,
        at=work.now,
        press_to_redeem=command.press_to_redeem,
        entitlements_claim=command.entitlements_claim,
    )
    auth.clients.save(client, work)
    work.publish(_announcement(client))
    return _view(client).model_copy(update={"version": client.version + 1})


async def list_clients(_query: ListClients, _work: Work, auth: Auth) -> ClientList:
    """List all clients, the oldest first."""
    return ClientList(tuple(map(_view, await auth.clients.all())))


async def announce_client(command: AnnounceClient, work: Work, auth: Auth) -> None:
    """Notify the gateways of a client's current state.

    Sent at each start, in case Kafka has lost an earlier notification.

    Raises:
        ClientNotFound: there is no such client.
    """
    work.publish(_announcement(await auth.clients.get(command.client_id)))


@audited("set_client_looks")
async def set_client_looks(command: SetClientLooks, work: Work, auth: Auth) -> None:
    """Forward the branding of an existing client to mailer, which replies to the caller.

    Raises:
        ClientNotFound: there is no such client.
    """
    client = await auth.clients.get(command.client_id)
    work.annotate(client_id=client.id)
    looks = ClientLooks(**{name: getattr(command, name) for name in ClientLooks.model_fields})
    work.forward(RecordClientLooks(key=client.id, client_id=client.id, looks=looks))


def _announcement(client: Client) -> ClientAnnounced:
    """The event that sends a client's current state to the gateways."""
    return ClientAnnounced(
        key=client.id, client_id=client.id, name=client.name, disabled=client.disabled_at is not None
    )


def _view(client: Client) -> ClientView:
    return ClientView(
        id=client.id,
        name=client.name,
        redirect_uris=client.redirect_uris,
        disabled=client.disabled_at is not None,
        press_to_redeem=client.press_to_redeem,
        entitlements_claim=client.entitlements_claim,
        created_at=client.created_at,
        updated_at=client.updated_at,
        version=client.version,
    )
