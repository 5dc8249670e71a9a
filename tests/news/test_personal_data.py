"""Export and erasure of personal data in news."""

import json
from typing import Any

from shared.messages import Sealed
from shared.messages.billing.subscriptions import SubscriptionStarted
from shared.messages.personal_data import AddExportedPart, ConfirmErasure, EraseUserFromNews, ExportUserFromNews
from tests.service_harness import ServiceHarness

IDS: dict[str, Any] = {"process_id": "userproc_1", "user_id": "user_1"}


async def add_subscriptions(harness: ServiceHarness, user_id: str, count: int) -> None:
    for number in range(count):
        await harness.deliver(
            SubscriptionStarted(user_id=user_id, subscription_id=f"sub_{user_id}_{number:03}", status="active")
        )


async def test_large_export_is_split_into_ordered_parts(harness: ServiceHarness, monkeypatch: Any) -> None:
    monkeypatch.setattr("shared.personal_data.export.MAX_DOCUMENTS", 3)
    await add_subscriptions(harness, "user_1", 7)
    await add_subscriptions(harness, "user_2", 1)
    harness.clear()
    commands: list[Any] = [ExportUserFromNews(**IDS, identifiers=Sealed.of("[]"), run=1)]
    parts: list[AddExportedPart] = []
    while commands:
        await harness.deliver(commands.pop())
        commands = harness.published_of(ExportUserFromNews)
        parts += harness.published_of(AddExportedPart)
        harness.clear()
    rows = [row for part in parts for row in json.loads(harness.unseal_secret("auth", part.documents))]
    assert [row["id"] for row in rows] == [f"sub_user_1_{number:03}" for number in range(7)]
    assert [part.number for part in parts] == list(range(len(parts)))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]


async def test_large_erasure_is_split_into_several_messages(harness: ServiceHarness, monkeypatch: Any) -> None:
    monkeypatch.setattr("shared.personal_data.erasure.MAX_DOCUMENTS", 3)
    await add_subscriptions(harness, "user_1", 7)
    await add_subscriptions(harness, "user_2", 1)
    commands: list[Any] = [EraseUserFromNews(**IDS, identifiers=Sealed.of("[]"))]
    runs = 0
    while commands:
        harness.clear()
        await harness.deliver(commands.pop())
        runs += 1
        commands = [message for message in harness.published_of(EraseUserFromNews) if not message.again]
    assert runs == 3
    assert harness.published_of(ConfirmErasure)
    remaining = await harness.database["subscriptions"].find().to_list()
    assert [row["userId"] for row in remaining] == ["user_2"]
