"""An event that came in is kept until what it hints at was read after it; then it is handled, not merely seen."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.billing import metrics
from services.billing.stripe_api.calls import Patience
from services.stripe_double import FaultKind
from shared.ids import derived_message_id
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.messages.billing.subscriptions import FollowCustomer, FollowSubscription, SubscriptionChanged
from tests.billing.conftest import Shop

FAST = Patience(attempt=0.3, call=1.0, portal=0.4, pause=0.01)
ADA = {"user_id": "user_ada"}


def reads(shop: Shop, subscription_id: str) -> int:
    return sum(call.path == f"/v1/subscriptions/{subscription_id}" for call in shop.double.log if call.method == "GET")


def orders(shop: Shop) -> list[FollowSubscription]:
    found: list[FollowSubscription] = shop.harness.published_of(FollowSubscription)
    return found


async def waiting(shop: Shop) -> tuple[int, datetime | None]:
    """How many events wait, and since when."""
    found: tuple[int, datetime | None] = await shop.harness.context.events.count_pending()
    return found


async def next_look(shop: Shop) -> FollowSubscription | None:
    """The look that waits for its time, once that has come; None when there is none."""
    at, again = (await shop.harness.delayed())[-1]
    if at <= shop.harness.now:
        return None
    shop.harness.now = at
    assert isinstance(again, FollowSubscription)
    return again


def whole(moment: datetime) -> datetime:
    """A moment in milliseconds, as MongoDB keeps it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _count(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


async def told(shop: Shop) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A subscription that six events tell of."""
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    for _ in range(2):
        shop.double.simulate.cancel(made["id"])
        shop.double.simulate.reactivate(made["id"])
    return made, shop.events_of(made["id"])


async def test_an_event_is_kept_with_what_it_is_about_and_nothing_of_a_person(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    event = shop.events_of(made["id"])[0]
    await shop.deliver(event, follow=False)
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


async def test_of_many_events_that_wait_one_is_read_for(shop: Shop) -> None:
    made, events = await told(shop)
    for event in events:
        await shop.deliver(event, follow=False)
    assert reads(shop, made["id"]) == 0
    await shop.settle()
    assert (len(events), len(orders(shop)), reads(shop, made["id"])) == (6, 6, 1)
    assert Counter(row["outcome"] for row in await shop.event_rows()) == {"read": 6}


async def test_an_event_that_comes_while_another_is_read_for_is_read_for_again(shop: Shop) -> None:
    made, events = await told(shop)
    await shop.deliver(events[0], follow=False)
    stripe = shop.harness.context.stripe
    read = stripe.subscription
    late = False

    async def and_then_it_ends(subscription_id: str) -> Any:
        nonlocal late
        truth = await read(subscription_id)
        if not late:
            late = True
            shop.double.simulate.cancel(made["id"], at="now")
            await shop.deliver(shop.events_of(made["id"])[-1], follow=False)
        return truth

    stripe.subscription = and_then_it_ends
    await shop.settle()
    assert (await shop.record(made["id"]))["status"] == "canceled"
    assert reads(shop, made["id"]) == 2
    assert Counter(row["outcome"] for row in await shop.event_rows()) == {"read": 2}


async def test_an_order_for_an_event_under_any_key_goes_under_the_subscription(shop: Shop) -> None:
    made, events = await told(shop)
    await shop.deliver(events[0], follow=False)
    rows = await shop.harness.database["inbox"].find().to_list()
    keys = [message["key"] for row in rows for message in row["messages"] if "follow-subscription" in repr(message)]
    assert keys == [made["id"]]


async def test_two_readers_at_once_leave_one_record_and_one_announcement(shop: Shop) -> None:
    made, events = await told(shop)
    await shop.deliver(events[0])
    shop.double.simulate.cancel(made["id"])
    for event in shop.events_of(made["id"])[1:]:
        await shop.deliver(event, follow=False)
    # As when a partition moves while its messages are under way.
    await asyncio.gather(*(shop.harness.deliver(order) for order in orders(shop) for _ in range(3)))
    assert (await shop.record(made["id"]))["cancelType"] == "period_end"
    assert len(shop.harness.published_of(SubscriptionChanged)) == 1
    assert Counter(row["outcome"] for row in await shop.event_rows()) == {"read": len(shop.events_of(made["id"]))}


async def test_while_stripe_is_away_an_event_waits_and_is_handled_after_it(shop: Shop) -> None:
    made, events = await told(shop)
    shop.harness.context.stripe.calls.patience = FAST
    fault = shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await shop.deliver(events[0])
    assert fault.hits == 3
    assert [row["handledAt"] for row in await shop.event_rows()] == [None]
    ((_, again),) = await shop.harness.delayed()
    assert isinstance(again, FollowSubscription)
    assert again.event_id is not None
    await shop.harness.deliver(again)
    assert [row["outcome"] for row in await shop.event_rows()] == ["read"]
    assert (await shop.record(made["id"]))["status"] == "active"


async def test_events_of_an_unknown_customer_wait_until_auth_has_answered(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    for event in shop.events_of(made["id"]):
        await shop.deliver(event)
    assert {row["handledAt"] for row in await shop.event_rows()} == {None}
    await shop.settle()
    assert {row["outcome"] for row in await shop.event_rows()} == {"read"}


async def test_an_event_whose_user_auth_never_names_waits_for_a_day_and_no_longer(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    began = shop.harness.now = whole(shop.harness.now)
    nobody = _count("nest_stripe_subscriptions_of_nobody_total")
    await shop.deliver(shop.events_of(made["id"])[0])
    while again := await next_look(shop):
        assert await waiting(shop) == (1, began)
        await shop.harness.deliver(again)
    assert timedelta(days=1) <= shop.harness.now - began <= timedelta(days=2)
    assert [row["outcome"] for row in await shop.event_rows()] == ["nobody"]
    assert await waiting(shop) == (0, None)
    assert _count("nest_stripe_subscriptions_of_nobody_total") > nobody
    assert len(shop.harness.published_of(EnsureUser)) == 1
    # Auth was only away: its answer is as good as ever.
    await shop.settle()
    assert (await shop.record(made["id"]))["userId"] == "user_1"


async def test_an_address_that_is_corrected_in_stripe_is_asked_for_anew(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.invalid")
    await shop.deliver(shop.events_of(made["id"])[0])
    await shop.post(f"/v1/customers/{made['customer']}", email="ada@example.com")
    await shop.harness.deliver(await next_look(shop))
    assert [asked.email for asked in shop.harness.published_of(EnsureUser)] == [
        "ada@example.invalid",
        "ada@example.com",
    ]
    asked = shop.harness.published_of(EnsureUser)[-1]
    await shop.harness.deliver(UserEnsured(key=asked.reference, reference=asked.reference, user_id="user_ada"))
    await shop.harness.deliver(shop.harness.published_of(FollowCustomer)[-1])
    await shop.harness.deliver(orders(shop)[-1])
    assert (await shop.record(made["id"]))["userId"] == "user_ada"
    assert [row["outcome"] for row in await shop.event_rows()] == ["read"]


async def test_how_many_events_wait_and_since_when_is_told(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    context = shop.harness.context
    await metrics.update_gauges(context.runs, context.standings, context.events)
    assert (metrics.PENDING_EVENTS._value.get(), metrics.PENDING_EVENTS_SINCE._value.get()) == (0, 0)
    events = shop.events_of(made["id"])
    began = shop.harness.now = whole(shop.harness.now)
    for event in events:
        await shop.deliver(event, follow=False)
        shop.harness.now += timedelta(minutes=1)
    await metrics.update_gauges(context.runs, context.standings, context.events)
    assert (metrics.PENDING_EVENTS._value.get(), metrics.PENDING_EVENTS_SINCE._value.get()) == (
        len(events),
        began.timestamp(),
    )


async def test_the_question_for_a_user_is_named_by_what_nobody_can_try_out(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    for event in shop.events_of(made["id"]):
        await shop.deliver(event)
    rows = await shop.harness.database["inbox"].find().to_list()
    ids = {message["id"] for row in rows for message in row["messages"] if message["type"] == EnsureUser.wire}
    email = b"ada@example.com"
    keyed = shop.harness.sealer.keyed_hash("ensure-user", made["customer"].encode(), email)
    # One question, however many events raise it.
    assert ids == {derived_message_id("ensure-user", keyed)}


async def test_what_is_not_followed_is_kept_too(shop: Shop) -> None:
    await shop.post("/v1/customers", email="ada@example.com")
    await shop.deliver_all()
    assert {(row["type"], row["outcome"]) for row in await shop.event_rows()} >= {
        ("customer.created", "not_followed"),
    }


async def test_an_event_of_the_other_mode_is_kept_as_such(shop: Shop) -> None:
    _, events = await told(shop)
    await shop.deliver({**events[0], "livemode": True})
    assert [(row["livemode"], row["outcome"]) for row in await shop.event_rows()] == [(True, "other_mode")]


async def test_an_event_that_the_inbox_has_forgotten_is_known_by_its_row(shop: Shop) -> None:
    made, events = await told(shop)
    await shop.deliver(events[0])
    await shop.harness.database["inbox"].delete_many({})
    await shop.deliver(events[0])
    assert (len(orders(shop)), reads(shop, made["id"]), await shop.count("stripe_events")) == (1, 1, 1)


async def test_an_event_that_is_reopened_is_read_for_again(shop: Shop) -> None:
    made, events = await told(shop)
    await shop.deliver(events[0])
    row = await shop.harness.context.events.find((await shop.event_rows())[0]["_id"])
    reopened = row.reopened()
    assert reopened.waits
    await shop.harness.database["stripe_events"].update_one(
        {"_id": row.id}, {"$set": {"handledAt": None, "outcome": None, "expiresAt": None}}
    )
    await shop.harness.deliver(FollowSubscription(subscription_id=made["id"], event_id=row.id))
    assert reads(shop, made["id"]) == 2


@pytest.mark.parametrize("repeats", [1, 3])
async def test_a_trials_end_is_told_of_once(repeats: int, shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=14)
    await shop.double.clock.advance(timedelta(days=11, hours=1))
    shop.harness.now = shop.double.clock.time
    types = [event["type"] for event in shop.events_of(made["id"])]
    assert types.count("customer.subscription.trial_will_end") == 1
    for number in range(repeats):
        for event in reversed(shop.events_of(made["id"])):
            await shop.deliver({**event, "id": f"{event['id']}_{number}"}, follow=number == 0)
    await shop.settle()
    assert sorted(shop.mails()) == [("trial-ending", "ada@example.com"), ("welcome-trial", "ada@example.com")]


async def test_a_short_trial_and_a_short_extension_are_not_told_of_as_ending(shop: Shop) -> None:
    short = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=2)
    await shop.double.clock.advance(timedelta(days=1))
    end = short["trial_end"] + 86400
    await shop.post(f"/v1/subscriptions/{short['id']}", trial_end=str(end))
    shop.harness.now = shop.double.clock.time
    types = [event["type"] for event in shop.events_of(short["id"])]
    assert types.count("customer.subscription.trial_will_end") == 2
    await shop.deliver_all()
    assert shop.mails() == [("welcome-trial", "ada@example.com")]


async def test_a_notice_for_an_end_that_has_moved_since_waits_for_the_next_one(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=14)
    await shop.double.clock.advance(timedelta(days=11, hours=1))
    await shop.post(f"/v1/subscriptions/{made['id']}", trial_end=str(made["trial_end"] + 10 * 86400))
    shop.harness.now = shop.double.clock.time
    await shop.deliver_all()
    assert [template for template, _ in shop.mails()] == ["welcome-trial"]
    await shop.double.clock.advance(timedelta(days=10))
    shop.harness.now = shop.double.clock.time
    await shop.deliver_all()
    assert [template for template, _ in shop.mails()] == ["welcome-trial", "trial-ending"]
