import json
from typing import Any

import pytest
import stripe

from services.stripe_double import API_VERSION
from services.stripe_double.events import previous_attributes
from tests.stripe_double.shop import SECRET, Receiver, Shop, open_shop


async def test_an_event_names_its_request_and_idempotency_key(shop: Shop) -> None:
    customer = await shop.api.customers.create_async({}, {"idempotency_key": "trial_1:customer"})
    event = shop.double.objects("event")[-1]
    assert event["request"] == {"id": customer.last_response.request_id, "idempotency_key": "trial_1:customer"}
    assert (event["api_version"], event["livemode"], event["type"]) == (API_VERSION, False, "customer.created")


async def test_an_event_keeps_the_object_as_it_was(shop: Shop) -> None:
    customer = await shop.customer(name="Ada")
    await shop.api.customers.update_async(customer.id, {"name": "Grace", "metadata": {"user_id": "u1"}})
    created, updated = shop.events("customer.created")[0], shop.events("customer.updated")[0]
    assert created["data"]["object"]["name"] == "Ada"
    assert updated["data"]["object"]["name"] == "Grace"
    assert updated["data"]["previous_attributes"] == {"name": "Ada", "metadata": {"user_id": None}}


async def test_a_renewal_event_has_the_former_period_of_the_item(shop: Shop) -> None:
    subscription = await shop.subscription()
    await shop.advance(days=32)
    before = shop.events("customer.subscription.updated")[-1]["data"]["previous_attributes"]
    assert before["latest_invoice"] == subscription.latest_invoice
    assert before["items"]["data"][0]["current_period_end"] == subscription.items.data[0].current_period_end


def test_previous_attributes_are_nested_for_objects_and_whole_for_lists() -> None:
    before = {"same": 1, "gone": 2, "object": {"a": 1, "b": 2}, "list": [1, 2]}
    after = {"same": 1, "object": {"a": 1, "b": 3}, "list": [1], "new": 4}
    assert previous_attributes(before, after) == {"gone": 2, "object": {"b": 2}, "list": [1, 2], "new": None}


async def test_events_are_filtered_by_type_pattern_or_several_types(shop: Shop) -> None:
    await shop.subscription()

    async def types(**params: object) -> set[str]:
        return {event.type for event in (await shop.api.events.list_async({"limit": 100, **params})).data}

    assert await types(type="invoice.paid") == {"invoice.paid"}
    assert await types(type="customer.*") == {"customer.created", "customer.subscription.created"}
    assert await types(types=["invoice.paid", "charge.succeeded"]) == {"invoice.paid", "charge.succeeded"}
    with pytest.raises(stripe.InvalidRequestError):
        await types(type="invoice.paid", types=["invoice.paid"])


async def test_paging_upwards_from_an_event_returns_all_later_events(shop: Shop) -> None:
    await shop.customer()
    cursor = shop.double.objects("event")[-1]["id"]
    await shop.subscription()
    later = [event["id"] for event in shop.double.objects("event")]
    later = later[later.index(cursor) + 1 :]
    listed = []
    while (page := await shop.api.events.list_async({"ending_before": cursor, "limit": 3})).data:
        listed += [event.id for event in reversed(page.data)]
        cursor = listed[-1]
    assert listed == later


async def test_events_older_than_thirty_days_are_gone(shop: Shop) -> None:
    await shop.customer()
    event = shop.double.objects("event")[-1]
    await shop.advance(days=30)
    assert (await shop.api.events.retrieve_async(event["id"])).id == event["id"]
    await shop.advance(seconds=1)
    assert (await shop.api.events.list_async()).data == []
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.events.retrieve_async(event["id"])


async def test_an_empty_time_range_is_an_empty_list(shop: Shop) -> None:
    assert (await shop.api.events.list_async({"delivery_success": False, "created": {"gte": 1}})).data == []


async def test_events_without_an_endpoint_count_as_delivered(shop: Shop) -> None:
    await shop.customer()
    assert (await shop.api.events.list_async({"delivery_success": False})).data == []


async def test_events_with_a_pending_delivery_count_as_undelivered() -> None:
    async with open_shop(webhook_secrets=[SECRET]) as shop:
        await shop.customer()
        undelivered = await shop.api.events.list_async({"delivery_success": False})
        assert [event.pending_webhooks for event in undelivered.data] == [1, 1, 1, 1]
        assert (await shop.api.events.list_async({"delivery_success": True})).data == []


async def test_a_cursor_may_name_an_event_delivered_since_the_last_page() -> None:
    async with open_shop(webhook_secrets=[SECRET]) as shop:
        for _ in range(3):
            await shop.customer()
        params: Any = {"delivery_success": False, "limit": 2}
        first = await shop.api.events.list_async(params)
        cursor = first.data[-1].id
        [row] = [row for row in shop.double.webhooks.pending if row["event"] == cursor]
        with shop.double.account.change():
            shop.double.account.remove("_delivery", row["id"])
        newest_first = [event["id"] for event in reversed(shop.double.objects("event"))]
        older = await shop.api.events.list_async({**params, "starting_after": cursor})
        assert [event.id for event in older.data] == newest_first[2:4]
        newer = await shop.api.events.list_async({**params, "ending_before": cursor})
        assert ([event.id for event in newer.data], newer.has_more) == (newest_first[:1], False)


async def test_a_thin_event_has_the_url_of_the_object_and_not_its_members(shop: Shop, receiver: Receiver) -> None:
    webhooks = shop.double.webhooks
    webhooks.thin, webhooks.secrets, webhooks.url = True, [SECRET], receiver.url
    customer = await shop.api.customers.create_async({"name": "Ada Lovelace"}, {"idempotency_key": "k1"})
    await shop.double.webhooks.drain()
    body, header = receiver.bodies[0], receiver.signatures[0]
    notification: Any = shop.client.parse_event_notification(body, header, SECRET)
    assert (notification.type, notification.livemode) == ("v1.customer.created", False)
    assert notification.reason.request.idempotency_key == "k1"
    # The library's fetch_related_object_async sends a stray parameter, so the link is followed by hand.
    response = await shop.client.raw_request_async("get", notification.related_object.url)
    assert response.data["id"] == customer.id
    (snapshot,) = shop.events("customer.created")
    assert json.loads(body)["snapshot_event"] == snapshot["id"] != notification.id
    # Too long to be in a random ID.
    assert b"Lovelace" not in body
    with pytest.raises(ValueError, match="thin"):
        stripe.Webhook.construct_event(body, header, SECRET)
