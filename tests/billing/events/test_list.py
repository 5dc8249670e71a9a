"""List of the Stripe events about a user's objects."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from services.billing.events.store import MAX_OBJECTS, StripeEvents
from shared.messages import Sealed, iso_milliseconds
from shared.messages.billing.history import ListStripeEvents
from shared.messages.personal_data import EraseUserFromBilling
from tests.billing.conftest import Shop

Act = Callable[[Shop, str], Any]


async def listed(shop: Shop, user_id: str = "user_ada", limit: int = 100) -> list[dict[str, Any]]:
    """All events of a user, newest first, read page by page."""
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await shop.harness.deliver(ListStripeEvents(user_id=user_id, limit=limit, cursor=cursor))
        assert len(page["events"]) <= limit
        found += page["events"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def subscribed(shop: Shop, name: str = "ada") -> str:
    made = shop.double.simulate.checkout(shop.price, email=f"{name}@example.com", metadata={"user_id": f"user_{name}"})
    await shop.deliver_all()
    return str(made["id"])


@pytest.mark.parametrize(
    ("act", "types"),
    [
        (lambda shop, made: shop.double.simulate.cancel(made), {"customer.subscription.updated"}),
        (lambda shop, made: shop.double.simulate.refund(made, amount=200), {"charge.refunded", "refund.created"}),
        (
            lambda shop, made: shop.double.simulate.dispute(made),
            {"charge.dispute.created", "charge.dispute.funds_withdrawn"},
        ),
    ],
    ids=["subscription", "payment", "dispute"],
)
async def test_events_about_each_kind_of_object_are_listed(shop: Shop, act: Act, types: set[str]) -> None:
    made = await subscribed(shop)
    before = {each["stp_event_id"] for each in await listed(shop)}
    act(shop, made)
    await shop.deliver_all()
    new = [each for each in await listed(shop) if each["stp_event_id"] not in before]
    assert {each["type"] for each in new} >= types
    assert all(each["outcome"] and each["handled_at"] for each in new)


async def test_an_event_is_listed_as_it_was_stored(shop: Shop) -> None:
    made = await subscribed(shop)
    events = await listed(shop)
    assert {each["object_type"] for each in events} >= {"subscription", "invoice", "payment_intent", "customer"}
    assert [each["made_at"] for each in events] == sorted((each["made_at"] for each in events), reverse=True)
    [created] = [each for each in events if each["type"] == "customer.subscription.created"]
    sent = shop.events_of(made)[0]
    assert created | {"received_at": "", "handled_at": ""} == {
        "stp_event_id": sent["id"],
        "type": "customer.subscription.created",
        "object_type": "subscription",
        "object_id": made,
        "made_at": iso_milliseconds(datetime.fromtimestamp(sent["created"], UTC)),
        "received_at": "",
        "handled_at": "",
        "outcome": "read",
    }


async def test_a_pending_event_has_no_outcome(shop: Shop) -> None:
    made = await subscribed(shop)
    shop.double.simulate.cancel(made)
    event = shop.events_of(made)[-1]
    await shop.deliver(event, process=False)
    [pending] = [each for each in await listed(shop) if each["stp_event_id"] == event["id"]]
    assert (pending["outcome"], pending["handled_at"]) == (None, None)


async def test_pages_have_each_event_of_the_user_once_and_none_of_others(shop: Shop) -> None:
    ada, bob = await subscribed(shop), await subscribed(shop, "bob")
    shop.double.simulate.refund(ada, amount=200)
    shop.double.simulate.dispute(bob)
    await shop.deliver_all()
    of_ada, of_bob = await listed(shop), await listed(shop, "user_bob")
    assert await listed(shop, limit=3) == of_ada
    ids = [each["stp_event_id"] for each in (*of_ada, *of_bob)]
    assert len(ids) == len(set(ids))
    assert {each["object_id"] for each in of_ada} >= {ada}
    assert {each["object_id"] for each in of_bob} >= {bob}
    assert await listed(shop, "user_unknown") == []


async def test_entitlements_are_listed_with_their_customer(shop: Shop) -> None:
    made = await subscribed(shop)
    customer = (await shop.record(made))["stpCustomerId"]
    summary = {"object": "entitlements.active_entitlement_summary", "customer": customer}
    kind = "entitlements.active_entitlement_summary.updated"
    await shop.deliver({**shop.events_of(made)[0], "id": "evt_summary", "type": kind, "data": {"object": summary}})
    [event] = [each for each in await listed(shop) if each["type"] == kind]
    assert event["object_id"] == customer


async def test_the_list_is_empty_after_an_erasure(shop: Shop) -> None:
    await subscribed(shop)
    assert await listed(shop)
    await shop.harness.deliver(EraseUserFromBilling(process_id="p", user_id="user_ada", identifiers=Sealed.of("[]")))
    await shop.settle()
    assert await listed(shop) == []


async def test_the_most_objects_are_read_in_order_from_the_indexes(shop: Shop) -> None:
    await subscribed(shop)
    database = shop.harness.database
    await database.command("profile", 2)
    await StripeEvents(database).about([f"pi_{number}" for number in range(MAX_OBJECTS)], limit=5, cursor=None)
    await database.command("profile", 0)
    profile = database["system.profile"]
    reads = await profile.find({"ns": f"{database.name}.stripe_events", "op": "query"}).to_list()
    await profile.drop()
    assert len(reads) == 2
    for read in reads:
        assert not read.get("hasSortStage", False)
        assert "COLLSCAN" not in read["planSummary"]
        assert read["docsExamined"] == 0


@pytest.mark.parametrize("cursor", ["x", "YWJj"])
async def test_an_invalid_cursor_is_refused(cursor: str, shop: Shop) -> None:
    with pytest.raises(Exception, match="invalid_cursor"):
        await shop.harness.deliver(ListStripeEvents(user_id="user_ada", cursor=cursor))
