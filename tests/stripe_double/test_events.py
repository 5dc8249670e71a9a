"""Events: what they show, and how they are listed."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from services.stripe_double import API_VERSION
from services.stripe_double.events import difference
from tests.stripe_double.shop import SECRET, USES_STRIPE, Shop, open_shop

pytestmark = USES_STRIPE


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        shop.double.clock.freeze()
        yield shop


async def test_an_event_names_the_call_and_the_key_that_caused_it(shop: Shop) -> None:
    made = await shop.api.customers.create_async({}, {"idempotency_key": "trial_1:customer"})
    event = shop.double.objects("event")[-1]
    assert event["request"] == {"id": made.last_response.request_id, "idempotency_key": "trial_1:customer"}
    assert (event["api_version"], event["livemode"], event["type"]) == (API_VERSION, False, "customer.created")


async def test_an_event_is_a_snapshot_that_later_changes_leave_alone(shop: Shop) -> None:
    made = await shop.customer(name="Ada")
    await shop.api.customers.update_async(made.id, {"name": "Grace", "metadata": {"user_id": "u1"}})
    created, updated = shop.events("customer.created")[0], shop.events("customer.updated")[0]
    assert created["data"]["object"]["name"] == "Ada"
    assert updated["data"]["object"]["name"] == "Grace"
    assert updated["data"]["previous_attributes"] == {"name": "Ada", "metadata": {"user_id": None}}


async def test_a_renewal_tells_the_old_period_at_item_level(shop: Shop) -> None:
    subscription = await shop.subscription()
    await shop.advance(days=32)
    before = shop.events("customer.subscription.updated")[-1]["data"]["previous_attributes"]
    assert before["latest_invoice"] == subscription.latest_invoice
    assert before["items"]["data"][0]["current_period_end"] == subscription.items.data[0].current_period_end


def test_a_difference_goes_into_objects_and_takes_lists_whole() -> None:
    before = {"same": 1, "gone": 2, "object": {"a": 1, "b": 2}, "list": [1, 2]}
    after = {"same": 1, "object": {"a": 1, "b": 3}, "list": [1], "new": 4}
    assert difference(before, after) == {"gone": 2, "object": {"b": 2}, "list": [1, 2], "new": None}


class TestList:
    async def test_types_are_asked_for_by_name_by_group_or_several(self, shop: Shop) -> None:
        await shop.subscription()

        async def types(**params: object) -> set[str]:
            return {event.type for event in (await shop.api.events.list_async({"limit": 100, **params})).data}

        assert await types(type="invoice.paid") == {"invoice.paid"}
        assert await types(type="customer.*") == {"customer.created", "customer.subscription.created"}
        assert await types(types=["invoice.paid", "charge.succeeded"]) == {"invoice.paid", "charge.succeeded"}
        with pytest.raises(stripe.InvalidRequestError):
            await types(type="invoice.paid", types=["invoice.paid"])

    async def test_a_sweep_upwards_from_a_known_event_meets_all_later_ones(self, shop: Shop) -> None:
        await shop.customer()
        known = shop.double.objects("event")[-1]["id"]
        await shop.subscription()
        later = [event["id"] for event in shop.double.objects("event")]
        later = later[later.index(known) + 1 :]
        swept = []
        while (page := await shop.api.events.list_async({"ending_before": known, "limit": 3})).data:
            swept += [event.id for event in reversed(page.data)]
            known = swept[-1]
        assert swept == later

    async def test_events_are_forgotten_after_thirty_days(self, shop: Shop) -> None:
        await shop.customer()
        event = shop.double.objects("event")[-1]
        await shop.advance(days=30)
        assert (await shop.api.events.retrieve_async(event["id"])).id == event["id"]
        await shop.advance(seconds=1)
        assert (await shop.api.events.list_async()).data == []
        with pytest.raises(stripe.InvalidRequestError):
            await shop.api.events.retrieve_async(event["id"])

    async def test_none_of_a_range_of_times_is_no_error(self, shop: Shop) -> None:
        assert (await shop.api.events.list_async({"delivery_success": False, "created": {"gte": 1}})).data == []

    async def test_those_nobody_wanted_count_as_delivered(self, shop: Shop) -> None:
        await shop.customer()
        assert (await shop.api.events.list_async({"delivery_success": False})).data == []

    async def test_those_still_waiting_count_as_undelivered(self) -> None:
        async with open_shop(webhook_secrets=[SECRET]) as shop:
            await shop.customer()
            undelivered = await shop.api.events.list_async({"delivery_success": False})
            assert [event.pending_webhooks for event in undelivered.data] == [1, 1, 1, 1]
            assert (await shop.api.events.list_async({"delivery_success": True})).data == []

    async def test_a_page_begins_after_one_that_was_delivered_meanwhile(self) -> None:
        async with open_shop(webhook_secrets=[SECRET]) as shop:
            for _ in range(3):
                await shop.customer()
            asked: Any = {"delivery_success": False, "limit": 2}
            first = await shop.api.events.list_async(asked)
            cursor = first.data[-1].id
            [row] = [row for row in shop.double.webhooks.waiting if row["event"] == cursor]
            with shop.double.account.change():
                shop.double.account.remove("_delivery", row["id"])
            everything = [event["id"] for event in reversed(shop.double.objects("event"))]
            older = await shop.api.events.list_async({**asked, "starting_after": cursor})
            assert [event.id for event in older.data] == everything[2:4]
            newer = await shop.api.events.list_async({**asked, "ending_before": cursor})
            assert ([event.id for event in newer.data], newer.has_more) == (everything[:1], False)
