"""Reads of a user's subscriptions: one indexed query, however many other users there are."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.messages import Query
from shared.messages.billing.subscriptions import (
    FollowSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionStatus,
)
from tests.billing.conftest import ADA, Shop

OTHERS = 300
"""Records of other users."""
OWN = 3
"""Records of Ada, of which one is live."""


@pytest.fixture
async def crowded(shop: Shop) -> AsyncIterator[Shop]:
    """A shop with many subscriptions, whose MongoDB records every operation in ``system.profile``."""
    records = shop.harness.database["subscriptions"]
    for number in range(OWN):
        made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
        if number < OWN - 1:
            shop.double.simulate.cancel(made["id"], at="now")
        await shop.harness.deliver(FollowSubscription(key=made["id"], subscription_id=made["id"]))
    record = await shop.record(made["id"])
    await records.insert_many(
        {**record, "_id": f"sub_{each}", "userId": f"user_{each}", "stpSubscriptionId": f"sub_stp_{each}"}
        for each in range(OTHERS)
    )
    await shop.harness.database.command("profile", 2)
    yield shop
    await shop.harness.database.command("profile", 0)
    await shop.harness.database["system.profile"].drop()


@pytest.mark.parametrize(
    "query",
    [GetSubscriptionStatus(user_id="user_ada"), GetSubscriptionHeartbeat(user_id="user_ada")],
    ids=lambda query: query.wire,
)
async def test_a_read_is_one_query_that_examines_the_records_of_its_user_only(crowded: Shop, query: Query) -> None:
    calls = len(crowded.double.log)
    await crowded.harness.deliver(query)
    profile: list[dict[str, Any]] = (
        await crowded.harness.database["system.profile"].find({"ns": {"$not": {"$regex": "system.profile"}}}).to_list()
    )
    (read,) = [each for each in profile if each["op"] != "command" or "find" in each["command"]]
    assert read["ns"].endswith(".subscriptions")
    assert read["planSummary"] == "IXSCAN { userId: 1 }"
    assert read["docsExamined"] == OWN
    assert read["nreturned"] == OWN
    assert len(crowded.double.log) == calls
