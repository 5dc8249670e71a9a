"""Handlers of auth for the mailer's webhooks."""

from datetime import UTC, datetime

import pytest

from shared.messages import Caller
from shared.messages.auth.webhooks import CreateWebhookEndpoint, FindLoginClients, UserErased
from shared.messages.mailer.webhook_events import WebhookEvent
from shared.messages.mailer.webhooks import AddWebhookEndpoint, OfferWebhook
from shared.messages.personal_data import EraseUser
from tests.auth.flows import CLIENT, log_in
from tests.service_harness import Refused, ServiceHarness

URL = "https://app.example/webhooks"


def event(user_id: str) -> WebhookEvent:
    at = datetime(2026, 11, 29, tzinfo=UTC)
    return WebhookEvent(event_id="webhookevent_1", type="user.created", at=at, user_id=user_id, data={})


@pytest.mark.parametrize("client_id", [CLIENT, None])
async def test_a_new_endpoint_is_forwarded_and_audited(harness: ServiceHarness, client_id: str | None) -> None:
    command = CreateWebhookEndpoint(url=URL, types=("user.*",), client_id=client_id)
    harness.clear()
    for _ in range(2):
        await harness.deliver(command, caller=Caller(kind="internal"), id="ab" * 16)
    assert harness.published_of(AddWebhookEndpoint) == [
        AddWebhookEndpoint(url=URL, types=("user.*",), description="", client_id=client_id)
    ]
    assert [(each.action, each.client_id) for each in harness.audited] == [("create_webhook_endpoint", client_id)]


async def test_an_endpoint_of_an_unknown_client_is_refused(harness: ServiceHarness) -> None:
    with pytest.raises(Refused, match="client_not_found"):
        await harness.deliver(CreateWebhookEndpoint(url=URL, types=("*",), client_id="client_missing"))
    assert harness.published_of(AddWebhookEndpoint) == []


async def test_the_clients_of_a_users_logins_are_sent_with_the_event(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    await harness.deliver(FindLoginClients(key=user_id, user_id=user_id, event=event(user_id)))
    assert harness.published_of(OfferWebhook) == [OfferWebhook(event=event(user_id), client_ids=(CLIENT,))]


async def test_an_event_of_a_user_without_logins_is_not_sent(harness: ServiceHarness) -> None:
    await harness.deliver(FindLoginClients(key="user_1", user_id="user_1", event=event("user_1")))
    assert harness.published_of(OfferWebhook) == []


async def test_an_erasure_names_the_clients_of_the_user(harness: ServiceHarness) -> None:
    user_id = (await log_in(harness))["user_id"]
    for _ in range(2):
        await harness.deliver(EraseUser(user_id=user_id))
    assert [(each.user_id, each.client_ids) for each in harness.published_of(UserErased)] == [(user_id, (CLIENT,))]
