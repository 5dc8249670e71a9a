"""Handlers of webhook endpoints."""

import re
from datetime import timedelta
from typing import Any

import pytest

from services.mailer.webhooks.models import MAX_ENDPOINTS_PER_CLIENT, MAX_SECRETS
from shared.messages.mailer.webhooks import (
    AddWebhookEndpoint,
    ConfirmNewWebhookEndpoint,
    ConfirmWebhookEndpoint,
    DeleteWebhookEndpoint,
    ListWebhookEndpoints,
    RemoveWebhooks,
    ResumeWebhooks,
    RollWebhookSecret,
    UpdateWebhookEndpoint,
)
from tests.mailer.webhooks.driver import OPERATOR, add_endpoint, run_timers
from tests.service_harness import Refused, ServiceHarness

URL = "https://app.example/webhooks"


async def endpoints(harness: ServiceHarness, client_id: str | None = None) -> list[dict[str, Any]]:
    view = await harness.deliver(ListWebhookEndpoints(client_id=client_id), caller=OPERATOR)
    return list(view["endpoints"])


async def test_an_endpoint_is_added_with_a_secret_that_is_shown_once(harness: ServiceHarness) -> None:
    added = await add_endpoint(harness, URL, "user.*", "user.*", "trial.started", client_id="client_1", description="d")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", added.pop("secret"))
    assert added["types"] == ["user.*", "trial.started"]
    assert (added["client_id"], added["description"], added["enabled"], added["version"]) == ("client_1", "d", True, 1)
    assert await endpoints(harness) == [added]


async def test_an_addition_that_is_delivered_twice_adds_one_endpoint(harness: ServiceHarness) -> None:
    command = AddWebhookEndpoint(url=URL, types=("*",), description="", client_id=None)
    for _ in range(2):
        await harness.deliver(command, id="same")
    assert len(harness.published_of(ConfirmNewWebhookEndpoint)) == 1
    assert len(await endpoints(harness)) == 1


async def test_secrets_are_sealed_in_the_database_and_in_messages(harness: ServiceHarness) -> None:
    added = await add_endpoint(harness, URL)
    rolled = await harness.deliver(RollWebhookSecret(id=added["id"]), caller=OPERATOR)
    stored = [
        str(document)
        for name in await harness.database.list_collection_names()
        for document in await harness.database[name].find().to_list()
    ]
    assert len(stored) > 1
    for secret in (added["secret"], rolled["secret"]):
        assert not any(secret.removeprefix("whsec_") in text for text in stored)


@pytest.mark.parametrize("url", ["ftp://app.example", "https://user:secret@app.example"])
async def test_a_url_that_is_refused_adds_and_changes_nothing(harness: ServiceHarness, url: str) -> None:
    with pytest.raises(Refused) as refused:
        await harness.deliver(AddWebhookEndpoint(url=url, types=("*",), description="", client_id=None))
    assert (refused.value.code, await endpoints(harness)) == ("webhook_url_refused", [])
    added = await add_endpoint(harness, URL)
    with pytest.raises(Refused, match="webhook_url_refused"):
        await harness.deliver(UpdateWebhookEndpoint(id=added["id"], url=url))
    assert (await endpoints(harness))[0]["url"] == URL


async def test_endpoints_of_each_client_are_limited(harness: ServiceHarness) -> None:
    for _ in range(MAX_ENDPOINTS_PER_CLIENT):
        await harness.deliver(AddWebhookEndpoint(url=URL, types=("*",), description="", client_id="client_1"))
    with pytest.raises(Refused) as refused:
        await harness.deliver(AddWebhookEndpoint(url=URL, types=("*",), description="", client_id="client_1"))
    assert (refused.value.code, refused.value.meta) == (
        "too_many_webhook_endpoints",
        {"limit": MAX_ENDPOINTS_PER_CLIENT},
    )
    await add_endpoint(harness, URL, client_id="client_2")
    await add_endpoint(harness, URL)
    assert len(await endpoints(harness)) == MAX_ENDPOINTS_PER_CLIENT + 2
    assert [each["client_id"] for each in await endpoints(harness, "client_2")] == ["client_2"]


async def test_a_change_of_the_types_is_confirmed_once_all_instances_know_it(harness: ServiceHarness) -> None:
    added = await add_endpoint(harness, URL, "user.*")
    assert await harness.deliver(UpdateWebhookEndpoint(id=added["id"], types=("trial.*",)), caller=OPERATOR) is None
    confirmed = await harness.deliver(harness.published_of(ConfirmWebhookEndpoint)[0])
    assert (confirmed["types"], confirmed["version"], "secret" in confirmed) == (["trial.*"], 2, False)


async def test_a_change_of_the_description_is_confirmed_at_once(harness: ServiceHarness) -> None:
    added = await add_endpoint(harness, URL)
    changed = await harness.deliver(UpdateWebhookEndpoint(id=added["id"], description="new", version=1))
    assert (changed["description"], changed["version"]) == ("new", 2)
    assert await endpoints(harness) == [changed]
    with pytest.raises(Refused, match="webhook_endpoint_changed"):
        await harness.deliver(UpdateWebhookEndpoint(id=added["id"], description="newer", version=1))


async def test_enabling_an_endpoint_resumes_its_pending_events(harness: ServiceHarness) -> None:
    added = await add_endpoint(harness, URL)
    disabled = await harness.deliver(UpdateWebhookEndpoint(id=added["id"], enabled=False))
    assert (disabled["enabled"], disabled["disabled_reason"]) == (False, "operator")
    assert harness.published_of(ResumeWebhooks) == []
    await harness.deliver(UpdateWebhookEndpoint(id=added["id"], enabled=True))
    assert [each.endpoint_id for each in harness.published_of(ResumeWebhooks)] == [added["id"]]


async def test_rolling_shows_the_new_secret_and_keeps_the_old_one_for_the_overlap(harness: ServiceHarness) -> None:
    added = await add_endpoint(harness, URL)
    rolled = await harness.deliver(RollWebhookSecret(id=added["id"], overlap_hours=2), caller=OPERATOR)
    assert rolled["secret"] != added["secret"]
    assert [each["expires_at"] is None for each in rolled["secrets"]] == [True, False]
    harness.now += timedelta(hours=3)
    assert [each["id"] for each in (await endpoints(harness))[0]["secrets"]] == [rolled["secrets"][0]["id"]]


async def test_secrets_of_an_endpoint_are_limited(harness: ServiceHarness) -> None:
    added = await add_endpoint(harness, URL)
    for _ in range(MAX_SECRETS - 1):
        await harness.deliver(RollWebhookSecret(id=added["id"]))
    with pytest.raises(Refused, match="too_many_webhook_secrets"):
        await harness.deliver(RollWebhookSecret(id=added["id"]))


async def test_deleting_an_endpoint_removes_its_deliveries_at_once_and_later(harness: ServiceHarness) -> None:
    added = await add_endpoint(harness, URL)
    assert await harness.deliver(DeleteWebhookEndpoint(id=added["id"]), caller=OPERATOR) is None
    assert await endpoints(harness) == []
    assert len(harness.published_of(RemoveWebhooks)) == 1
    assert [type(message) for _, message in await harness.delayed()] == [RemoveWebhooks]
    await run_timers(harness, after=timedelta(minutes=11))


@pytest.mark.parametrize(
    "command",
    [
        UpdateWebhookEndpoint(id="webhookendpoint_1"),
        DeleteWebhookEndpoint(id="webhookendpoint_1"),
        RollWebhookSecret(id="webhookendpoint_1"),
        ConfirmWebhookEndpoint(endpoint_id="webhookendpoint_1"),
    ],
    ids=lambda command: type(command).__name__,
)
async def test_an_unknown_endpoint_is_not_found(harness: ServiceHarness, command: Any) -> None:
    with pytest.raises(Refused, match="webhook_endpoint_not_found"):
        await harness.deliver(command)


async def test_orders_of_operators_are_audited(harness: ServiceHarness) -> None:
    added = await add_endpoint(harness, URL, client_id="client_1")
    await harness.deliver(RollWebhookSecret(id=added["id"]), caller=OPERATOR)
    await harness.deliver(UpdateWebhookEndpoint(id=added["id"], description="new"), caller=OPERATOR)
    await harness.deliver(DeleteWebhookEndpoint(id=added["id"]), caller=OPERATOR)
    assert [(each.action, each.resource_id, each.client_id) for each in harness.recorded] == [
        (action, added["id"], "client_1")
        for action in ("roll_webhook_secret", "update_webhook_endpoint", "delete_webhook_endpoint")
    ]
