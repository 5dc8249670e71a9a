"""Cancellation of duplicates and of subscriptions without the required coupon."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    DuplicateSubscriptionCancelled,
    DuplicateSubscriptionFound,
)
from tests.billing.conftest import ADA, FAST, Shop, counter, post


async def test_a_duplicate_is_cancelled_with_one_mail_and_one_event(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    await shop.deliver_all()
    kept, cancelled_record = await shop.record(first["id"]), await shop.record(second["id"])
    assert (kept["status"], cancelled_record["status"], cancelled_record["duplicateOf"]) == (
        "active",
        "canceled",
        kept["_id"],
    )
    assert shop.double.object("subscription", first["id"])["status"] == "active"
    assert shop.double.object("subscription", second["id"])["status"] == "canceled"
    assert shop.mails() == [("welcome", "ada@example.com"), ("duplicate-subscription", "ada@example.com")]
    (event,) = shop.harness.published_of(DuplicateSubscriptionCancelled)
    assert (event.user_id, event.subscription_id, event.kept_subscription_id) == (
        "user_ada",
        cancelled_record["_id"],
        kept["_id"],
    )
    (call,) = [call for call in shop.double.log if call.method == "DELETE"]
    assert (call.params["prorate"], call.params["invoice_now"]) == ("true", "true")


async def test_a_duplicate_through_another_customer_is_cancelled(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    await shop.deliver_all()
    assert (await shop.record(second["id"]))["duplicateOf"] == (await shop.record(first["id"]))["_id"]
    assert await shop.count("provider_mappings") == 2


async def test_a_checkout_is_not_cancelled_as_a_duplicate(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA, payment_method=None)
    await shop.deliver_all()
    assert shop.harness.published_of(CancelDuplicateSubscription) == []
    assert (await shop.record(second["id"]))["status"] == "incomplete"


async def test_if_the_older_one_has_ended_the_newer_one_is_kept(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    # The webhook about its end is lost.
    shop.double.simulate.cancel(first["id"], at="now")
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    for event in shop.events_of(second["id"]):
        await shop.deliver(event)
    await shop.settle()
    assert shop.double.object("subscription", second["id"])["status"] == "active"
    assert (await shop.record(first["id"]))["status"] == "canceled"
    assert shop.mails() == [("welcome", "ada@example.com")] * 2
    assert shop.harness.published_of(DuplicateSubscriptionCancelled) == []


async def test_a_missing_older_one_causes_one_cancellation_command(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    with shop.double.account.change():
        shop.double.account.remove("subscription", first["id"])
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA, trial_days=7)
    await shop.deliver(shop.events_of(second["id"])[0])
    async with asyncio.timeout(5):
        await shop.settle()
    assert shop.double.object("subscription", second["id"])["status"] == "trialing"
    assert len(shop.harness.published_of(CancelDuplicateSubscription)) == 1


async def test_a_cancellation_before_a_crash_is_announced_after_it(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    for event in [*shop.events_of(first["id"]), *shop.events_of(second["id"])]:
        await shop.deliver(event)
    kept = await shop.record(first["id"])
    # Another process called Stripe and crashed before its commit.
    await shop.harness.context.stripe.cancel_duplicate(second["id"], kept_subscription_id=kept["_id"], key="k")
    await shop.settle()
    assert shop.mails() == [("welcome", "ada@example.com"), ("duplicate-subscription", "ada@example.com")]
    assert len(shop.harness.published_of(DuplicateSubscriptionCancelled)) == 1
    assert len([call for call in shop.double.log if call.method == "DELETE"]) == 1


async def test_a_cancellation_is_retried_after_an_outage_of_stripe(shop: Shop) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, customer=first["customer"], metadata=ADA)
    for event in [*shop.events_of(first["id"]), *shop.events_of(second["id"])]:
        await shop.deliver(event)
    command = shop.harness.published_of(CancelDuplicateSubscription)[0]
    shop.harness.context.stripe.calls.timeouts = FAST
    async with shop.double.outage():
        await shop.harness.deliver(command)
    ((_, retry),) = await shop.harness.delayed()
    assert (type(retry), retry.attempt) == (CancelDuplicateSubscription, 2)


async def test_two_subscriptions_that_become_live_at_once_are_serialized(
    shop: Shop, open_shop: Callable[..., Any]
) -> None:
    first = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.next_second()
    second = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    other: Shop = await open_shop()
    subscriptions = shop.harness.context.subscriptions
    read = subscriptions.of_user
    delivered = False

    async def read_and_deliver_the_other(user_id: str) -> Any:
        nonlocal delivered
        found = await read(user_id)
        if not delivered:
            delivered = True
            await other.deliver(shop.events_of(second["id"])[0])
        return found

    object.__setattr__(shop.harness.context, "subscriptions", subscriptions)
    subscriptions.of_user = read_and_deliver_the_other
    await shop.deliver(shop.events_of(first["id"])[0])
    commands = [
        *shop.harness.published_of(CancelDuplicateSubscription),
        *other.harness.published_of(CancelDuplicateSubscription),
    ]
    kept, duplicate = sorted([first, second], key=lambda made: (made["created"], made["id"]))
    assert [(command.subscription_id, command.kept_subscription_id) for command in commands] == [
        ((await shop.record(duplicate["id"]))["_id"], (await shop.record(kept["id"]))["_id"])
    ]


async def test_without_cancelling_each_duplicate_is_announced_once(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(stripe_cancel_duplicates=False)
    before = counter("nest_stripe_duplicate_subscriptions", done="told")
    first, second = await shop.subscribe_twice()
    await shop.deliver_all()
    shop.double.simulate.cancel(second["id"])
    await shop.deliver_all()
    assert shop.double.object("subscription", second["id"])["status"] == "active"
    (found,) = shop.harness.published_of(DuplicateSubscriptionFound)
    kept, duplicate = await shop.record(first["id"]), await shop.record(second["id"])
    assert (found.subscription_id, found.kept_subscription_id) == (duplicate["_id"], kept["_id"])
    assert counter("nest_stripe_duplicate_subscriptions", done="told") > before
    assert not [call for call in shop.double.log if call.method in ("POST", "DELETE") and call.path != "/v1/prices"]


async def test_after_the_grace_period_a_newer_subscription_is_no_duplicate(shop: Shop) -> None:
    overdue = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.decline(overdue["customer"])
    await shop.double.clock.advance(timedelta(days=32))
    with shop.double.account.change():
        shop.double.account.update(shop.double.account.get("subscription", overdue["id"]), status="past_due")
    newer = shop.double.simulate.checkout(shop.price, email="ada@example.org", metadata=ADA)
    shop.harness.now = shop.double.clock.time + timedelta(days=31)
    await shop.deliver_all()
    assert shop.double.object("subscription", newer["id"])["status"] == "active"
    assert shop.harness.published_of(DuplicateSubscriptionCancelled) == []


async def test_a_subscription_without_the_required_coupon_is_cancelled(
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
