"""Synchronization of a subscription's record, its events and its mails with Stripe."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.stripe_double import FaultKind
from shared.messages.billing.subscriptions import (
    FollowCustomer,
    FollowSubscription,
    SubscriptionChanged,
    SubscriptionEnded,
    SubscriptionStarted,
)
from shared.messages.mailer.mails import SendMail, TrialVariables
from tests.billing.conftest import ADA, FAST, Shop, counter

STORED_FIELDS = {
    "_id",
    "userId",
    "stpProductId",
    "stpSubscriptionId",
    "stpCustomerId",
    "status",
    "startsAt",
    "endsAt",
    "cancelAt",
    "cancelType",
    "cancelledAt",
    "createdAt",
    "updatedAt",
    "version",
}


async def test_a_new_subscription_is_stored_announced_and_welcomed(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    record = await shop.record(made["id"])
    item = made["items"]["data"][0]
    assert set(record) >= STORED_FIELDS
    assert record["welcomedAt"] is not None
    assert record["_id"].startswith("test_sub_")
    assert (record["userId"], record["status"]) == ("user_ada", "active")
    assert (record["stpCustomerId"], record["stpProductId"]) == (made["customer"], item["price"]["product"])
    assert record["startsAt"] == datetime.fromtimestamp(item["current_period_start"], UTC)
    assert record["endsAt"] == datetime.fromtimestamp(item["current_period_end"], UTC)
    assert (record["cancelAt"], record["cancelType"], record["cancelledAt"]) == (None, None, None)
    assert [(event.user_id, event.status) for event in shop.harness.published_of(SubscriptionStarted)] == [
        ("user_ada", "active")
    ]
    assert shop.mails() == [("welcome", "ada@example.com")]
    assert await shop.count("provider_mappings") == 1


async def test_the_welcome_mail_of_a_trial_names_its_end(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=14)
    await shop.deliver_all()
    assert shop.mails() == [("welcome-trial", "ada@example.com")]
    (mail,) = shop.harness.published_of(SendMail)
    variables = TrialVariables.model_validate_json(shop.harness.unseal_secret("mailer", mail.variables))
    assert variables.ends_at == datetime.fromtimestamp(made["trial_end"], UTC)


async def test_no_stored_document_contains_an_address(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    for name in await shop.harness.database.list_collection_names():
        async for document in shop.harness.database[name].find():
            assert b"ada@example.com" not in repr(document).encode()


async def test_a_checkout_is_welcomed_once_it_is_paid(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, payment_method=None)
    await shop.deliver_all()
    assert (await shop.record(made["id"]))["status"] == "incomplete"
    assert shop.mails() == []
    shop.double.simulate.recover(made["customer"])
    await shop.deliver_all()
    assert (await shop.record(made["id"]))["status"] == "active"
    assert shop.mails() == [("welcome", "ada@example.com")]


async def test_a_change_is_announced_with_the_changed_fields(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.double.simulate.cancel(made["id"])
    await shop.deliver_all()
    (changed,) = shop.harness.published_of(SubscriptionChanged)
    assert changed.changed == ("cancelAt", "cancelType", "cancelledAt")
    record = await shop.record(made["id"])
    assert (record["cancelType"], record["cancelAt"]) == ("period_end", record["endsAt"])


async def test_an_end_planned_by_date_is_at_period_end(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.cancel(made["id"], at="date")
    await shop.deliver_all()
    record = await shop.record(made["id"])
    assert (record["cancelType"], record["cancelAt"]) == ("period_end", record["endsAt"])


async def test_an_end_is_announced_once(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.double.simulate.cancel(made["id"], at="now")
    await shop.deliver_all()
    (ended,) = shop.harness.published_of(SubscriptionEnded)
    assert (ended.status, shop.harness.published_of(SubscriptionChanged)) == ("canceled", [])
    record = await shop.record(made["id"])
    assert (record["cancelType"], record["cancelledAt"]) == ("immediate", record["endsAt"])


async def test_the_subscription_of_a_deleted_customer_is_synchronized(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.double.simulate.delete_customer(made["customer"])
    await shop.deliver_all()
    assert (await shop.record(made["id"]))["status"] == "canceled"
    assert len(shop.mails()) == 1


async def test_a_subscription_of_the_other_mode_is_not_recorded(shop: Shop) -> None:
    before = counter("nest_stripe_other_mode")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    with shop.double.account.change():
        shop.double.account.update(shop.double.account.get("subscription", made["id"]), livemode=True)
    await shop.deliver(shop.events_of(made["id"])[0])
    assert counter("nest_stripe_other_mode") == before + 1
    assert await shop.count("subscriptions") == 0


async def test_an_unknown_status_is_stored_and_counted(shop: Shop) -> None:
    before = counter("nest_stripe_unknown_statuses")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    with shop.double.account.change():
        shop.double.account.update(shop.double.account.get("subscription", made["id"]), status="hibernating")
    await shop.deliver(shop.events_of(made["id"])[0])
    assert (await shop.record(made["id"]))["status"] == "hibernating"
    assert counter("nest_stripe_unknown_statuses") == before + 1


async def test_a_missing_subscription_is_counted(shop: Shop) -> None:
    before = counter("nest_stripe_subscriptions_missing")
    await shop.harness.deliver(FollowSubscription(subscription_id="sub_none"))
    assert counter("nest_stripe_subscriptions_missing") == before + 1


@pytest.mark.parametrize("command", [FollowSubscription(subscription_id="sub_1"), FollowCustomer(customer_id="cus_1")])
async def test_pauses_between_attempts_grow_during_an_outage_of_stripe(
    command: FollowSubscription | FollowCustomer, shop: Shop
) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    async with shop.double.outage():
        await shop.harness.deliver(command)
        await shop.harness.deliver(command.model_copy(update={"attempt": 50}))
    first, last = [(at - shop.harness.now, message.attempt) for at, message in await shop.harness.delayed()]
    assert timedelta(seconds=3) < first[0] < timedelta(seconds=7)
    assert first[1] == 2
    assert timedelta(minutes=10) < last[0] < timedelta(minutes=20)
    assert last[1] == 51


async def test_a_subscription_is_recorded_after_an_outage_of_stripe(shop: Shop) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    fault = shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await shop.deliver(shop.events_of(made["id"])[0])
    assert fault.hits == 3
    ((_, retry),) = await shop.harness.delayed()
    await shop.harness.deliver(retry)
    assert (await shop.record(made["id"]))["status"] == "active"


async def test_an_overtaken_reading_is_repeated(shop: Shop, open_shop: Callable[..., Any]) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    other: Shop = await open_shop()
    stripe = shop.harness.context.stripe
    read = stripe.subscription

    async def overtaken(subscription_id: str) -> Any:
        stale = await read(subscription_id)
        if stale.status == "active":
            shop.double.simulate.cancel(made["id"], at="now")
            await other.harness.deliver(FollowSubscription(subscription_id=subscription_id))
        return stale

    stripe.subscription = overtaken
    await shop.harness.deliver(FollowSubscription(subscription_id=made["id"]))
    assert (await shop.record(made["id"]))["status"] == "canceled"
    assert len(shop.harness.published_of(SubscriptionEnded)) + len(other.harness.published_of(SubscriptionEnded)) == 1


async def test_a_later_reading_counts_even_if_the_clock_is_behind(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.harness.now -= timedelta(minutes=10)
    shop.double.simulate.cancel(made["id"], at="now")
    await shop.deliver_all()
    assert (await shop.record(made["id"]))["status"] == "canceled"


@pytest.mark.parametrize("repeats", [1, 3])
async def test_one_mail_is_sent_about_the_end_of_a_trial(repeats: int, shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=14)
    await shop.double.clock.advance(timedelta(days=11, hours=1))
    shop.harness.now = shop.double.clock.time
    types = [event["type"] for event in shop.events_of(made["id"])]
    assert types.count("customer.subscription.trial_will_end") == 1
    for number in range(repeats):
        for event in reversed(shop.events_of(made["id"])):
            await shop.deliver({**event, "id": f"{event['id']}_{number}"}, process=number == 0)
    await shop.settle()
    assert sorted(shop.mails()) == [("trial-ending", "ada@example.com"), ("welcome-trial", "ada@example.com")]


async def test_short_trials_and_extensions_cause_no_mail_about_their_end(shop: Shop) -> None:
    short = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=2)
    await shop.double.clock.advance(timedelta(days=1))
    end = short["trial_end"] + 86400
    await shop.post(f"/v1/subscriptions/{short['id']}", trial_end=str(end))
    shop.harness.now = shop.double.clock.time
    types = [event["type"] for event in shop.events_of(short["id"])]
    assert types.count("customer.subscription.trial_will_end") == 2
    await shop.deliver_all()
    assert shop.mails() == [("welcome-trial", "ada@example.com")]


async def test_an_outdated_notice_about_the_end_of_a_trial_causes_no_mail(shop: Shop) -> None:
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
