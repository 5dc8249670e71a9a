"""Handlers of webhook endpoints, for operators: create, change, list and delete them, and roll their secrets."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from services.mailer.context import SERVICE, Mailer
from services.mailer.webhooks.models import Endpoint, Secret, must_have_room
from services.mailer.webhooks.signatures import new_secret
from shared.bus.work import Work
from shared.messages import Sealed
from shared.messages.mailer.webhooks import (
    AddWebhookEndpoint,
    ConfirmNewWebhookEndpoint,
    ConfirmWebhookEndpoint,
    DeleteWebhookEndpoint,
    ListWebhookEndpoints,
    NewWebhookSecretView,
    RemoveWebhooks,
    ResumeWebhooks,
    RollWebhookSecret,
    UpdateWebhookEndpoint,
    WebhookEndpointList,
    WebhookEndpointView,
)

MAX_REMOVED: Final = 500
"""Deliveries that one message removes."""


async def add_webhook_endpoint(command: AddWebhookEndpoint, work: Work, mailer: Mailer) -> None:
    """Add an endpoint; the reply comes from ``confirm_new_webhook_endpoint``.

    Raises:
        WebhookUrlRefused: webhooks may not be sent to the URL.
        TooManyWebhookEndpoints: the client has as many endpoints as allowed.
    """
    mailer.webhook_client.destinations.check(command.url)
    must_have_room(await mailer.webhook_endpoints.count(command.client_id))
    secret = new_secret()
    endpoint = Endpoint(
        id=work.new_id("webhookendpoint"),
        client_id=command.client_id,
        url=command.url,
        types=tuple(dict.fromkeys(command.types)),
        description=command.description,
        secrets=(_sealed(secret, work, mailer),),
        enabled_at=work.now,
        created_at=work.now,
        updated_at=work.now,
    )
    mailer.webhook_endpoints.add(endpoint, work)
    confirmation = ConfirmNewWebhookEndpoint(key=endpoint.id, endpoint_id=endpoint.id, secret=Sealed.of(secret))
    work.forward(confirmation)


async def confirm_new_webhook_endpoint(
    command: ConfirmNewWebhookEndpoint, work: Work, mailer: Mailer
) -> NewWebhookSecretView:
    """Return a new endpoint and its secret, once every instance records events for it.

    Raises:
        WebhookEndpointNotFound: it was deleted meanwhile.
    """
    view = await confirm_webhook_endpoint(command, work, mailer)
    return NewWebhookSecretView(**dict(view), secret=mailer.unseal(command.secret))


async def confirm_webhook_endpoint(command: ConfirmWebhookEndpoint, work: Work, mailer: Mailer) -> WebhookEndpointView:
    """Return an endpoint, once every instance records the events that it has chosen.

    Raises:
        WebhookEndpointNotFound: it was deleted meanwhile.
    """
    await asyncio.sleep(mailer.wanted_events.max_age)
    return await _view(await mailer.webhook_endpoints.get(command.endpoint_id), work, mailer)


async def update_webhook_endpoint(
    command: UpdateWebhookEndpoint, work: Work, mailer: Mailer
) -> WebhookEndpointView | None:
    """Change an endpoint. If it gets further events from now on, ``confirm_webhook_endpoint`` replies.

    Raises:
        WebhookEndpointNotFound: there is no such endpoint.
        WebhookEndpointChanged: it has been changed since the caller read it.
        WebhookUrlRefused: webhooks may not be sent to the URL.
    """
    stored = await mailer.webhook_endpoints.get(command.id)
    work.annotate(resource_id=stored.id, client_id=stored.client_id)
    stored.must_have_version(command.version)
    if command.url is not None:
        mailer.webhook_client.destinations.check(command.url)
    endpoint = stored.change(
        url=command.url,
        types=command.types,
        description=command.description,
        enabled=command.enabled,
        at=work.now,
    )
    mailer.webhook_endpoints.save(endpoint, work)
    if endpoint.enabled and not stored.enabled:
        work.publish(ResumeWebhooks(key=endpoint.id, endpoint_id=endpoint.id))
    if endpoint.enabled and (not stored.enabled or endpoint.types != stored.types):
        work.forward(ConfirmWebhookEndpoint(key=endpoint.id, endpoint_id=endpoint.id))
        return None
    return (await _view(endpoint, work, mailer)).model_copy(update={"version": endpoint.version + 1})


async def delete_webhook_endpoint(command: DeleteWebhookEndpoint, work: Work, mailer: Mailer) -> None:
    """Delete an endpoint, and order the removal of its deliveries.

    Raises:
        WebhookEndpointNotFound: there is no such endpoint.
    """
    endpoint = await mailer.webhook_endpoints.get(command.id)
    work.annotate(resource_id=endpoint.id, client_id=endpoint.client_id)
    mailer.webhook_endpoints.remove(endpoint, work)
    # An event that is being recorded now may add a delivery after the first removal.
    for delay in (timedelta(0), timedelta(minutes=10)):
        work.publish(RemoveWebhooks(key=endpoint.id, endpoint_id=endpoint.id), at=work.now + delay if delay else None)


async def remove_webhooks(command: RemoveWebhooks, work: Work, mailer: Mailer) -> None:
    """Remove some deliveries of a deleted endpoint, and order the removal of the rest."""
    found = await mailer.webhook_deliveries.of_endpoint(command.endpoint_id, MAX_REMOVED)
    for delivery in found:
        mailer.webhook_deliveries.remove(delivery, work)
    if len(found) == MAX_REMOVED:
        work.publish(command.model_copy(update={"key": work.key}))


async def list_webhook_endpoints(query: ListWebhookEndpoints, work: Work, mailer: Mailer) -> WebhookEndpointList:
    """Return all endpoints, or those of a client, oldest first."""
    if query.client_id is None:
        endpoints = await mailer.webhook_endpoints.all()
    else:
        endpoints = await mailer.webhook_endpoints.of_client(query.client_id)
    return WebhookEndpointList(endpoints=tuple([await _view(each, work, mailer) for each in endpoints]))


async def roll_webhook_secret(command: RollWebhookSecret, work: Work, mailer: Mailer) -> NewWebhookSecretView:
    """Add a secret to an endpoint; the earlier ones sign for the overlap too.

    Raises:
        WebhookEndpointNotFound: there is no such endpoint.
        TooManyWebhookSecrets: it has as many secrets that sign as allowed.
    """
    stored = await mailer.webhook_endpoints.get(command.id)
    work.annotate(resource_id=stored.id, client_id=stored.client_id)
    secret = new_secret()
    overlap = timedelta(hours=command.overlap_hours)
    endpoint = stored.roll(_sealed(secret, work, mailer), overlap=overlap, at=work.now)
    mailer.webhook_endpoints.save(endpoint, work)
    view = await _view(endpoint, work, mailer)
    return NewWebhookSecretView(**{**dict(view), "version": endpoint.version + 1}, secret=secret)


def _sealed(secret: str, work: Work, mailer: Mailer) -> Secret:
    sealed = mailer.sealer.seal(SERVICE, secret.encode())
    return Secret(id=work.new_id("webhooksecret"), sealed=sealed, created_at=work.now)


async def _view(endpoint: Endpoint, work: Work, mailer: Mailer) -> WebhookEndpointView:
    pending, last_delivered_at = await asyncio.gather(
        mailer.webhook_deliveries.count_pending(endpoint.id), mailer.webhook_deliveries.last_delivered_at(endpoint.id)
    )
    return endpoint.view(pending=pending, last_delivered_at=last_delivered_at, at=work.now)
