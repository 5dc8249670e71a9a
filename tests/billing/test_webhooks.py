import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.billing.stripe_api.calls import Patience
from services.stripe_double import FaultKind
from shared.messages.auth.users import EnsureUser, UserEnsured
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    DuplicateSubscriptionCancelled,
    FollowCustomer,
    FollowSubscription,
    SubscriptionChanged,
    SubscriptionEnded,
    SubscriptionStarted,
)
from shared.messages.mailer.mails import SendMail, TrialVariables
from tests.billing.conftest import Shop, post

FAST = Patience(attempt=0.3, call=1.0, portal=0.4, pause=0.01)
ADA = {"user_id": "user_ada"}
AT_REST = {
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


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"{name}_total", labels) or 0.0


async def test_a_new_subscription_is_stored_announced_and_welcomed(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    record = await shop.record(made["id"])
    item = made["items"]["data"][0]
    assert set(record) >= AT_REST
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


async def test_a_trial_is_welcomed_as_a_trial_with_its_end(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, trial_days=14)
    await shop.deliver_all()
    assert shop.mails() == [("welcome-trial", "ada@example.com")]
    (mail,) = shop.harness.published_of(SendMail)
    variables = TrialVariables.model_validate_json(shop.harness.unseal_secret("mailer", mail.variables))
    assert variables.ends_at == datetime.fromtimestamp(made["trial_end"], UTC)


async def test_an_address_is_never_readable_outside_of_auth_and_mailer(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    for name in await shop.harness.database.list_collection_names():
        async for document in shop.harness.database[name].find():
            assert b"ada@example.com" not in repr(document).encode()


async def test_a_checkout_in_progress_is_stored_and_not_yet_welcomed(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, payment_method=None)
    await shop.deliver_all()
    assert (await shop.record(made["id"]))["status"] == "incomplete"
    assert shop.mails() == []
    shop.double.simulate.recover(made["customer"])
    await shop.deliver_all()
    assert (await shop.record(made["id"]))["status"] == "active"
    assert shop.mails() == [("welcome", "ada@example.com")]


async def test_a_second_delivery_reads_nothing_and_sends_nothing(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    before, calls, said = await shop.record(made["id"]), len(shop.double.log), len(shop.harness.published)
    await shop.deliver_all()
    assert (await shop.record(made["id"]), len(shop.double.log), len(shop.harness.published)) == (before, calls, said)


async def test_a_change_is_announced_with_the_fields_that_changed(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.double.simulate.cancel(made["id"])
    await shop.deliver_all()
    (changed,) = shop.harness.published_of(SubscriptionChanged)
    assert changed.changed == ("cancelAt", "cancelType", "cancelledAt")
    record = await shop.record(made["id"])
    assert (record["cancelType"], record["cancelAt"]) == ("period_end", record["endsAt"])


async def test_an_end_planned_by_date_is_at_period_end_too(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.cancel(made["id"], at="date")
    await shop.deliver_all()
    record = await shop.record(made["id"])
    assert (record["cancelType"], record["cancelAt"]) == ("period_end", record["endsAt"])


async def test_an_end_is_announced_once_as_an_end(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.double.simulate.cancel(made["id"], at="now")
    await shop.deliver_all()
    (ended,) = shop.harness.published_of(SubscriptionEnded)
    assert (ended.status, shop.harness.published_of(SubscriptionChanged)) == ("canceled", [])
    record = await shop.record(made["id"])
    assert (record["cancelType"], record["cancelledAt"]) == ("immediate", record["endsAt"])


async def test_the_event_says_nothing_that_is_believed(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    event = shop.events_of(made["id"])[0]
    event["data"]["object"] |= {"status": "canceled", "metadata": {"user_id": "user_eve"}}
    await shop.deliver(event)
    record = await shop.record(made["id"])
    assert (record["status"], record["userId"]) == ("active", "user_ada")


async def test_the_user_of_an_unknown_customer_comes_from_its_address(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    for event in shop.events_of(made["id"]):
        await shop.deliver(event)
    (asked,) = shop.harness.published_of(EnsureUser)
    assert (asked.reference, asked.email) == (made["customer"], "ada@example.com")
    assert await shop.count("subscriptions") == 0
    await shop.settle()
    assert (await shop.record(made["id"]))["userId"] == shop.users["ada@example.com"]
    mapping = await shop.harness.database["provider_mappings"].find_one({})
    assert mapping is not None
    assert {key: mapping[key] for key in ("userId", "providerType", "providerValue", "removedAt")} == {
        "userId": shop.users["ada@example.com"],
        "providerType": "stripe",
        "providerValue": made["customer"],
        "removedAt": None,
    }


async def test_metadata_goes_before_the_mapping_and_that_before_the_address(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.deliver_all()
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata={"user_id": "user_bob"})
    third = shop.double.simulate.checkout(shop.price, customer=first["customer"])
    await shop.deliver_all()
    assert (await shop.record(second["id"]))["userId"] == "user_bob"
    assert (await shop.record(third["id"]))["userId"] == shop.users["ada@example.com"]
    # For the payments auth is asked on its own, by their ids.
    assert [
        asked.reference for asked in shop.harness.published_of(EnsureUser) if asked.reference.startswith("cus_")
    ] == [first["customer"]]


async def test_a_customer_that_names_another_user_moves_its_mapping(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.deliver_all()
    await shop.post(f"/v1/customers/{made['customer']}", **{"metadata[user_id]": "user_new"})
    await shop.harness.deliver(FollowSubscription(subscription_id=made["id"]))
    assert (await shop.record(made["id"]))["userId"] == "user_new"
    mappings = [mapping async for mapping in shop.harness.database["provider_mappings"].find()]
    assert [mapping["userId"] for mapping in mappings] == ["user_new"]


async def test_a_subscription_of_nobody_is_counted_and_left(shop: Shop) -> None:
    before = counted("nest_stripe_subscriptions_of_nobody")
    customer = await shop.post("/v1/customers", name="No address")
    made = shop.double.simulate.checkout(shop.price, customer=customer["id"])
    await shop.deliver(shop.events_of(made["id"])[0])
    assert counted("nest_stripe_subscriptions_of_nobody") == before + 1
    assert [type(said) for said in shop.harness.published] == [FollowSubscription]
    assert (await shop.event_rows())[0]["outcome"] == "nobody"


async def test_a_deleted_customer_has_no_address_and_its_subscription_is_still_followed(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.double.simulate.delete_customer(made["customer"])
    await shop.deliver_all()
    assert (await shop.record(made["id"]))["status"] == "canceled"
    assert len(shop.mails()) == 1


async def test_what_no_event_of_ours_means_is_acknowledged_and_counted(shop: Shop) -> None:
    before = counted("nest_stripe_events", type="other")
    customer = await shop.post("/v1/customers", email="ada@example.com")
    (event,) = [event for event in shop.double.objects("event") if event["type"] == "customer.created"]
    calls = len(shop.double.log)
    await shop.deliver(event)
    await shop.deliver({**event, "id": "evt_new", "type": "a.type.of.tomorrow", "data": {"object": {"object": "x"}}})
    assert counted("nest_stripe_events", type="other") == before + 2
    assert (len(shop.double.log), shop.harness.published) == (calls, []), customer


async def test_an_event_of_the_other_mode_is_counted_and_not_followed(shop: Shop) -> None:
    before = counted("nest_stripe_other_mode")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    calls = len(shop.double.log)
    await shop.deliver({**shop.events_of(made["id"])[0], "livemode": True})
    assert counted("nest_stripe_other_mode") == before + 1
    assert (await shop.count("subscriptions"), len(shop.double.log)) == (0, calls)


async def test_a_subscription_of_the_other_mode_is_not_followed(shop: Shop) -> None:
    before = counted("nest_stripe_other_mode")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    with shop.double.account.change():
        shop.double.account.update(shop.double.account.get("subscription", made["id"]), livemode=True)
    await shop.deliver(shop.events_of(made["id"])[0])
    assert counted("nest_stripe_other_mode") == before + 1
    assert await shop.count("subscriptions") == 0


async def test_an_unknown_status_is_stored_counted_and_an_alarm(shop: Shop) -> None:
    before = counted("nest_stripe_unknown_statuses")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    with shop.double.account.change():
        shop.double.account.update(shop.double.account.get("subscription", made["id"]), status="hibernating")
    await shop.deliver(shop.events_of(made["id"])[0])
    assert (await shop.record(made["id"]))["status"] == "hibernating"
    assert counted("nest_stripe_unknown_statuses") == before + 1


async def test_a_subscription_that_stripe_does_not_have_is_counted(shop: Shop) -> None:
    before = counted("nest_stripe_subscriptions_missing")
    await shop.harness.deliver(FollowSubscription(subscription_id="sub_nobody"))
    assert counted("nest_stripe_subscriptions_missing") == before + 1


@pytest.mark.parametrize("command", [FollowSubscription(subscription_id="sub_1"), FollowCustomer(customer_id="cus_1")])
async def test_while_stripe_is_away_following_waits_longer_and_longer(
    command: FollowSubscription | FollowCustomer, shop: Shop
) -> None:
    shop.harness.context.stripe.calls.patience = FAST
    async with shop.double.outage():
        await shop.harness.deliver(command)
        await shop.harness.deliver(command.model_copy(update={"attempt": 50}))
    first, last = [(at - shop.harness.now, message.attempt) for at, message in await shop.harness.delayed()]
    assert timedelta(seconds=3) < first[0] < timedelta(seconds=7)
    assert first[1] == 2
    assert timedelta(minutes=10) < last[0] < timedelta(minutes=20)
    assert last[1] == 51


async def test_a_webhook_that_came_during_an_outage_is_followed_after_it(shop: Shop) -> None:
    shop.harness.context.stripe.calls.patience = FAST
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    fault = shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await shop.deliver(shop.events_of(made["id"])[0])
    assert fault.hits == 3
    ((_, again),) = await shop.harness.delayed()
    await shop.harness.deliver(again)
    assert (await shop.record(made["id"]))["status"] == "active"


async def test_a_reading_that_was_overtaken_is_made_again(shop: Shop, open_shop: Callable[..., Any]) -> None:
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


async def test_a_clock_that_is_behind_does_not_hold_back_a_later_reading(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    shop.harness.now -= timedelta(minutes=10)
    shop.double.simulate.cancel(made["id"], at="now")
    await shop.deliver_all()
    assert (await shop.record(made["id"]))["status"] == "canceled"


async def test_a_second_live_subscription_is_cancelled_with_one_mail_and_one_event(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    await shop.deliver_all()
    kept, gone = await shop.record(first["id"]), await shop.record(second["id"])
    assert (kept["status"], gone["status"], gone["duplicateOf"]) == ("active", "canceled", kept["_id"])
    assert shop.double.object("subscription", first["id"])["status"] == "active"
    assert shop.double.object("subscription", second["id"])["status"] == "canceled"
    assert shop.mails() == [("welcome", "ada@example.com"), ("duplicate-subscription", "ada@example.com")]
    (said,) = shop.harness.published_of(DuplicateSubscriptionCancelled)
    assert (said.user_id, said.subscription_id, said.kept_subscription_id) == ("user_ada", gone["_id"], kept["_id"])
    (cancelled,) = [call for call in shop.double.log if call.method == "DELETE"]
    assert (cancelled.params["prorate"], cancelled.params["invoice_now"]) == ("true", "true")


async def test_duplicates_of_one_user_through_two_customers_are_seen(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    await shop.deliver_all()
    assert (await shop.record(second["id"]))["duplicateOf"] == (await shop.record(first["id"]))["_id"]
    assert await shop.count("provider_mappings") == 2


async def test_a_checkout_in_progress_is_never_cancelled_as_a_duplicate(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA, payment_method=None)
    await shop.deliver_all()
    assert shop.harness.published_of(CancelDuplicateSubscription) == []
    assert (await shop.record(second["id"]))["status"] == "incomplete"


async def test_when_the_kept_one_is_over_in_stripe_the_newcomer_stays(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    # Its end is in Stripe; the webhook that tells of it is lost.
    shop.double.simulate.cancel(first["id"], at="now")
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    for event in shop.events_of(second["id"]):
        await shop.deliver(event)
    await shop.settle()
    assert shop.double.object("subscription", second["id"])["status"] == "active"
    assert (await shop.record(first["id"]))["status"] == "canceled"
    assert shop.mails() == [("welcome", "ada@example.com")] * 2
    assert shop.harness.published_of(DuplicateSubscriptionCancelled) == []


async def test_a_kept_one_that_stripe_does_not_have_orders_nothing_again(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    with shop.double.account.change():
        shop.double.account.remove("subscription", first["id"])
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA, trial_days=7)
    await shop.deliver(shop.events_of(second["id"])[0])
    async with asyncio.timeout(5):
        await shop.settle()
    assert shop.double.object("subscription", second["id"])["status"] == "trialing"
    assert len(shop.harness.published_of(CancelDuplicateSubscription)) == 1


async def test_a_cancellation_that_was_made_before_a_crash_is_announced_after_it(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    for event in [*shop.events_of(first["id"]), *shop.events_of(second["id"])]:
        await shop.deliver(event)
    kept = await shop.record(first["id"])
    # Another process had called Stripe and died before its commit.
    await shop.harness.context.stripe.cancel_duplicate(second["id"], kept_subscription_id=kept["_id"], key="k")
    await shop.settle()
    assert shop.mails() == [("welcome", "ada@example.com"), ("duplicate-subscription", "ada@example.com")]
    assert len(shop.harness.published_of(DuplicateSubscriptionCancelled)) == 1
    assert len([call for call in shop.double.log if call.method == "DELETE"]) == 1


async def test_a_cancellation_waits_while_stripe_is_away(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    for event in [*shop.events_of(first["id"]), *shop.events_of(second["id"])]:
        await shop.deliver(event)
    order = shop.harness.published_of(CancelDuplicateSubscription)[0]
    shop.harness.context.stripe.calls.patience = FAST
    async with shop.double.outage():
        await shop.harness.deliver(order)
    ((_, again),) = await shop.harness.delayed()
    assert (type(again), again.attempt) == (CancelDuplicateSubscription, 2)


async def test_two_that_come_to_life_at_once_are_decided_one_after_the_other(
    shop: Shop, open_shop: Callable[..., Any]
) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.a_second_later()
    second = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    other: Shop = await open_shop()
    subscriptions = shop.harness.context.subscriptions
    read = subscriptions.of_user
    raced = False

    async def and_then_the_other(user_id: str) -> Any:
        nonlocal raced
        found = await read(user_id)
        if not raced:
            raced = True
            await other.deliver(shop.events_of(second["id"])[0])
        return found

    object.__setattr__(shop.harness.context, "subscriptions", subscriptions)
    subscriptions.of_user = and_then_the_other
    await shop.deliver(shop.events_of(first["id"])[0])
    orders = [
        *shop.harness.published_of(CancelDuplicateSubscription),
        *other.harness.published_of(CancelDuplicateSubscription),
    ]
    kept, gone = sorted([first, second], key=lambda made: (made["created"], made["id"]))
    assert [(order.subscription_id, order.kept_subscription_id) for order in orders] == [
        ((await shop.record(gone["id"]))["_id"], (await shop.record(kept["id"]))["_id"])
    ]


async def test_where_a_coupon_is_required_one_without_it_is_cancelled_without_a_mail(
    open_shop: Callable[..., Any],
) -> None:
    shop: Shop = await open_shop(stripe_required_coupon="staff")
    await post(shop.double, "/v1/coupons", id="staff", percent_off="50", duration="forever")
    without = shop.double.simulate.checkout(shop.price, email="eve@example.com", metadata={"user_id": "user_eve"})
    coupon = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA, coupon="staff")
    trial = shop.double.simulate.checkout(
        shop.price, email="bob@example.com", metadata={"user_id": "user_bob"}, trial_days=3
    )
    await shop.deliver_all()
    await shop.deliver_all()
    assert (await shop.record(without["id"]))["status"] == "canceled"
    assert (await shop.record(coupon["id"]))["status"] == "active"
    assert (await shop.record(trial["id"]))["status"] == "trialing"
    assert sorted(shop.mails()) == [("welcome", "ada@example.com"), ("welcome-trial", "bob@example.com")]
    assert len([call for call in shop.double.log if call.method == "DELETE"]) == 1


async def test_a_user_of_somebody_elses_question_is_nothing_to_billing(shop: Shop) -> None:
    await shop.harness.deliver(UserEnsured(reference="import_7", user_id="user_ada"))
    assert (await shop.count("provider_mappings"), shop.harness.published) == (0, [])
