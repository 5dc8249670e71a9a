"""Storage of Stripe events, and the reading that each type causes."""

from __future__ import annotations

from datetime import timedelta

from services.billing.events.handlers import EVENT_HANDLERS, METER_ERRORS, NEEDED_EVENTS
from services.operator.doctor.stripe import PAYMENT_EVENTS, SUBSCRIPTION_EVENTS
from shared.messages.billing.payments import (
    PaymentSucceeded,
)
from shared.messages.billing.stripe_events import EVENT_TYPES
from shared.messages.billing.subscriptions import (
    FollowSubscription,
)
from tests.billing.conftest import ADA, Shop, counter
from tests.metrics import increments


def commands(shop: Shop) -> list[FollowSubscription]:
    found: list[FollowSubscription] = shop.harness.published_of(FollowSubscription)
    return found


def test_every_type_that_the_webhook_endpoint_must_have_has_a_handler() -> None:
    assert EVENT_HANDLERS.keys() >= NEEDED_EVENTS == SUBSCRIPTION_EVENTS | PAYMENT_EVENTS


async def test_an_event_is_stored_without_personal_data(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    event = shop.events_of(made["id"])[0]
    await shop.deliver(event, process=False)
    (row,) = await shop.event_rows()
    assert {name: row[name] for name in ("account", "livemode", "stpEventId", "type", "objectType", "objectId")} == {
        "account": "",
        "livemode": False,
        "stpEventId": event["id"],
        "type": "customer.subscription.created",
        "objectType": "subscription",
        "objectId": made["id"],
    }
    assert row["madeAt"].timestamp() == event["created"]
    assert (row["handledAt"], row["outcome"], row["expiresAt"]) == (None, None, None)
    assert "user_ada" not in repr(row)
    await shop.settle()
    (row,) = await shop.event_rows()
    assert row["outcome"] == "read"
    assert row["expiresAt"] - row["handledAt"] == timedelta(days=90)


async def test_the_reading_is_keyed_by_the_subscription(shop: Shop) -> None:
    made, events = shop.subscription_with_events()
    await shop.deliver(events[0], process=False)
    rows = await shop.harness.database["inbox"].find().to_list()
    keys = [message["key"] for row in rows for message in row["messages"] if "follow-subscription" in repr(message)]
    assert keys == [made["id"]]


async def test_an_event_of_an_unhandled_type_is_stored(shop: Shop) -> None:
    await shop.post("/v1/customers", email="ada@example.com")
    await shop.deliver_all()
    assert {(row["type"], row["outcome"]) for row in await shop.event_rows()} >= {
        ("customer.created", "not_followed"),
    }


def test_metrics_name_exactly_the_handled_types() -> None:
    assert EVENT_HANDLERS.keys() | METER_ERRORS == EVENT_TYPES


async def test_an_event_is_counted_with_its_outcome_once(shop: Shop) -> None:
    await shop.post("/v1/products", name="Plan")
    event = [event for event in shop.double.objects("event") if event["type"] == "product.created"][-1]
    with increments("nest_stripe_events_total") as counted:
        for _ in range(2):
            await shop.deliver(event)
    assert counted == {("product.created", "read"): 1}


async def test_events_of_unhandled_types_are_counted_and_cause_nothing(shop: Shop) -> None:
    await shop.post("/v1/customers", email="ada@example.com")
    (event,) = [event for event in shop.double.objects("event") if event["type"] == "customer.created"]
    calls = len(shop.double.log)
    with increments("nest_stripe_events_total") as counted:
        await shop.deliver(event)
        await shop.deliver({**event, "id": "evt_new", "type": "a.future.type", "data": {"object": {"object": "x"}}})
    assert counted == {("other", "not_followed"): 2}
    assert (len(shop.double.log), shop.harness.published) == (calls, [])


async def test_an_event_of_the_other_mode_is_stored(shop: Shop) -> None:
    _, events = shop.subscription_with_events()
    await shop.deliver({**events[0], "livemode": True})
    assert [(row["livemode"], row["outcome"]) for row in await shop.event_rows()] == [(True, "other_mode")]


async def test_an_event_of_the_other_mode_is_counted_and_causes_no_call(shop: Shop) -> None:
    before = counter("nest_stripe_other_mode")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    calls = len(shop.double.log)
    await shop.deliver({**shop.events_of(made["id"])[0], "livemode": True})
    assert counter("nest_stripe_other_mode") == before + 1
    assert (await shop.count("subscriptions"), len(shop.double.log)) == (0, calls)


async def test_an_event_that_the_inbox_has_forgotten_is_handled_once(shop: Shop) -> None:
    made, events = shop.subscription_with_events()
    await shop.deliver(events[0])
    await shop.harness.database["inbox"].delete_many({})
    await shop.deliver(events[0])
    assert (len(commands(shop)), shop.reads(f"/v1/subscriptions/{made['id']}"), await shop.count("stripe_events")) == (
        1,
        1,
        1,
    )


async def test_the_content_of_an_event_is_not_used(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    event = shop.events_of(made["id"])[0]
    event["data"]["object"] |= {"status": "canceled", "metadata": {"user_id": "user_eve"}}
    await shop.deliver(event)
    record = await shop.record(made["id"])
    assert (record["status"], record["userId"]) == ("active", "user_ada")


async def test_the_content_of_a_payment_event_is_not_used(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    (event,) = [event for event in shop.double.objects("event") if event["type"] == "payment_intent.succeeded"]
    event["data"]["object"] |= {"status": "canceled", "amount": 1, "customer": None}
    await shop.deliver(event)
    record = await shop.harness.database["payments"].find_one({"stpPaymentIntentId": event["data"]["object"]["id"]})
    assert record is not None
    assert (record["status"], record["amount"], record["stpCustomerId"]) == ("succeeded", 500, made["customer"])


async def test_second_delivery_reads_nothing_and_publishes_nothing(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    before, calls, published = await shop.record(made["id"]), len(shop.double.log), len(shop.harness.published)
    await shop.deliver_all()
    assert (await shop.record(made["id"]), len(shop.double.log), len(shop.harness.published)) == (
        before,
        calls,
        published,
    )


async def test_a_thin_event_is_handled_as_its_snapshot(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    (paid,) = [each["id"] for each in shop.double.objects("payment_intent")]
    thin = {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v1.payment_intent.succeeded",
        "created": "2026-11-21T06:05:00.000Z",
        "livemode": False,
        "related_object": {"id": paid, "type": "payment_intent", "url": f"/v1/payment_intents/{paid}"},
    }
    await shop.deliver_thin(thin)
    record = await shop.harness.database["payments"].find_one({"stpPaymentIntentId": paid})
    assert record is not None
    assert record["status"] == "succeeded"
    await shop.deliver_thin({**thin, "id": "evt_test_2", "livemode": True})
    await shop.deliver_thin({**thin, "id": "evt_test_3", "type": "v2.core.account.updated", "related_object": None})
    assert len(shop.harness.published_of(PaymentSucceeded)) == 1
