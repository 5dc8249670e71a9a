"""Handlers for the mailer's webhooks: check the client of an endpoint, and find the clients of a user."""

from __future__ import annotations

from services.auth.audit.recorder import audited
from services.auth.context import Auth
from shared.bus.work import Work
from shared.messages.auth.webhooks import CreateWebhookEndpoint, FindLoginClients
from shared.messages.mailer.webhooks import AddWebhookEndpoint, OfferWebhook


@audited("create_webhook_endpoint")
async def create_webhook_endpoint(command: CreateWebhookEndpoint, work: Work, auth: Auth) -> None:
    """Forward a new endpoint to mailer, which replies to the caller.

    Raises:
        ClientNotFound: there is no such client.
    """
    if command.client_id is not None:
        client = await auth.clients.get(command.client_id)
        work.annotate(client_id=client.id)
    work.forward(
        AddWebhookEndpoint(
            key=command.client_id or "",
            url=command.url,
            types=command.types,
            description=command.description,
            client_id=command.client_id,
        )
    )


async def find_login_clients(command: FindLoginClients, work: Work, auth: Auth) -> None:
    """Send mailer an event with the clients that its user has logged in to, if there are any."""
    client_ids = await auth.access_tokens.clients_of(command.user_id)
    client_ids |= await auth.refresh_tokens.clients_of(command.user_id)
    if client_ids:
        work.publish(OfferWebhook(key=command.user_id, event=command.event, client_ids=tuple(sorted(client_ids))))
