"""Helpers of the tests of webhooks: endpoints, events, and the bus in between."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from shared.bus.inbox import Inbox
from shared.messages import Caller, Message
from shared.messages.mailer.webhooks import (
    AddWebhookEndpoint,
    AttemptWebhook,
    ConfirmNewWebhookEndpoint,
    ContinueWebhookReplay,
    DisableWebhookEndpoint,
    ListWebhookDeliveries,
    RemoveWebhooks,
    ResumeWebhooks,
)
from tests.mailer.webhook_receiver import Receiver
from tests.service_harness import ServiceHarness

OPERATOR = Caller(kind="internal", key_name="ops")
OWN = (
    AttemptWebhook,
    ConfirmNewWebhookEndpoint,
    ContinueWebhookReplay,
    DisableWebhookEndpoint,
    RemoveWebhooks,
    ResumeWebhooks,
)
"""Commands that the mailer sends to itself."""


async def add_endpoint(
    harness: ServiceHarness, url: str, *types: str, client_id: str | None = None, description: str = ""
) -> dict[str, Any]:
    """Add an endpoint and return its view with the secret."""
    command = AddWebhookEndpoint(url=url, types=types or ("*",), description=description, client_id=client_id)
    assert await harness.deliver(command) is None
    confirmation = harness.published_of(ConfirmNewWebhookEndpoint)[-1]
    harness.clear()
    view: dict[str, Any] = await harness.deliver(confirmation)
    return view


async def connect_receiver(harness: ServiceHarness, receiver: Receiver, *types: str, **options: Any) -> str:
    """Add an endpoint for a receiver that verifies signatures; return its ID."""
    view = await add_endpoint(harness, receiver.url, *types, **options)
    receiver.secrets = [view["secret"]]
    return str(view["id"])


async def run(harness: ServiceHarness, *messages: Message) -> None:
    """Deliver messages, and everything that they send to the mailer itself without a delay."""
    for message in messages:
        await harness.deliver(message)
        await drain(harness)


async def drain(harness: ServiceHarness) -> None:
    """Deliver what the mailer has sent to itself without a delay."""
    while own := [each for each in harness.published if isinstance(each, OWN)]:
        harness.published = [each for each in harness.published if not isinstance(each, OWN)]
        for each in own:
            await harness.deliver(each)


async def run_timers(harness: ServiceHarness, *, after: timedelta) -> None:
    """Move the time, and deliver what is due then."""
    harness.now += after
    due = [message for at, message in await harness.delayed() if at <= harness.now]
    await harness.database[Inbox.TIMERS].delete_many({"at": {"$lte": harness.now}})
    await run(harness, *due)


async def next_attempt(harness: ServiceHarness) -> datetime:
    """Return when the next delayed attempt is due."""
    return min(at for at, message in await harness.delayed() if isinstance(message, AttemptWebhook))


async def deliveries(harness: ServiceHarness, **filters: Any) -> list[dict[str, Any]]:
    """Return deliveries as operators see them, oldest first."""
    page = await harness.deliver(ListWebhookDeliveries(**filters), caller=OPERATOR)
    return list(reversed(page["deliveries"]))
