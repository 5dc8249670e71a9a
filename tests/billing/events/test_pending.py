"""Pending events: one reading settles all events that were pending when it began."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from services.billing import metrics
from services.billing.events.handlers import EVENT_HANDLERS
from services.stripe_double import FaultKind
from shared.messages.auth.users import EnsureUser
from shared.messages.billing.payments import (
    FindPayments,
    FollowPayment,
    PaymentEvent,
    PaymentRefunded,
)
from shared.messages.billing.subscriptions import FollowSubscription, SubscriptionChanged
from tests.billing.conftest import ADA, FAST, Shop, counter


def commands(shop: Shop) -> list[FollowSubscription]:
    found: list[FollowSubscription] = shop.harness.published_of(FollowSubscription)
    return found


async def pending(shop: Shop) -> tuple[int, datetime | None]:
    """The number of pending events, and when the oldest was received."""
    found: tuple[int, datetime | None] = await shop.harness.context.events.count_pending()
    return found


async def next_retry(shop: Shop) -> FollowSubscription | None:
    """The next retry of the reading, at its time; None if there is none."""
    at, retry = (await shop.harness.delayed())[-1]
    if at <= shop.harness.now:
        return None
    shop.harness.now = at
    assert isinstance(retry, FollowSubscription)
    return retry


def in_milliseconds(moment: datetime) -> datetime:
    """The time truncated to milliseconds, as MongoDB stores it."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


async def test_one_reading_settles_many_pending_events(shop: Shop) -> None:
    made, events = shop.subscription_with_events()
    for event in events:
        await shop.deliver(event, process=False)
    assert shop.reads(f"/v1/subscriptions/{made['id']}") == 0
    await shop.settle()
    assert (len(events), len(commands(shop)), shop.reads(f"/v1/subscriptions/{made['id']}")) == (6, 6, 1)
    assert Counter(row["outcome"] for row in await shop.event_rows()) == {"read": 6}


async def test_an_event_received_during_a_reading_causes_another_reading(shop: Shop) -> None:
    made, events = shop.subscription_with_events()
    await shop.deliver(events[0], process=False)
    stripe = shop.harness.context.stripe
    read = stripe.subscription
    cancelled = False

    async def read_and_cancel(subscription_id: str) -> Any:
        nonlocal cancelled
        stripe_subscription = await read(subscription_id)
        if not cancelled:
            cancelled = True
            shop.double.simulate.cancel(made["id"], at="now")
            await shop.deliver(shop.events_of(made["id"])[-1], process=False)
        return stripe_subscription

    stripe.subscription = read_and_cancel
    await shop.settle()
    assert (await shop.record(made["id"]))["status"] == "canceled"
    assert shop.reads(f"/v1/subscriptions/{made['id']}") == 2
    assert Counter(row["outcome"] for row in await shop.event_rows()) == {"read": 2}


async def test_concurrent_readings_leave_one_record_and_one_event(shop: Shop) -> None:
    made, events = shop.subscription_with_events()
    await shop.deliver(events[0])
    shop.double.simulate.cancel(made["id"])
    for event in shop.events_of(made["id"])[1:]:
        await shop.deliver(event, process=False)
    # As after a rebalance during which messages are handled twice.
    await asyncio.gather(*(shop.harness.deliver(command) for command in commands(shop) for _ in range(3)))
    assert (await shop.record(made["id"]))["cancelType"] == "period_end"
    assert len(shop.harness.published_of(SubscriptionChanged)) == 1
    assert Counter(row["outcome"] for row in await shop.event_rows()) == {"read": len(shop.events_of(made["id"]))}


async def test_an_event_stays_pending_during_an_outage_of_stripe(shop: Shop) -> None:
    made, events = shop.subscription_with_events()
    shop.harness.context.stripe.calls.timeouts = FAST
    fault = shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    await shop.deliver(events[0])
    assert fault.hits == 3
    assert [row["handledAt"] for row in await shop.event_rows()] == [None]
    ((_, retry),) = await shop.harness.delayed()
    assert isinstance(retry, FollowSubscription)
    assert retry.event_id is not None
    await shop.harness.deliver(retry)
    assert [row["outcome"] for row in await shop.event_rows()] == ["read"]
    assert (await shop.record(made["id"]))["status"] == "active"


async def test_events_stay_pending_until_auth_names_the_user(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    for event in shop.events_of(made["id"]):
        await shop.deliver(event)
    assert {row["handledAt"] for row in await shop.event_rows()} == {None}
    await shop.settle()
    assert {row["outcome"] for row in await shop.event_rows()} == {"read"}


async def test_an_event_whose_user_stays_unknown_is_settled_after_a_day(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    began = shop.harness.now = in_milliseconds(shop.harness.now)
    before = counter("nest_stripe_subscriptions_of_nobody")
    await shop.deliver(shop.events_of(made["id"])[0])
    while retry := await next_retry(shop):
        assert await pending(shop) == (1, began)
        await shop.harness.deliver(retry)
    assert timedelta(days=1) <= shop.harness.now - began <= timedelta(days=2)
    assert [row["outcome"] for row in await shop.event_rows()] == ["nobody"]
    assert await pending(shop) == (0, None)
    assert counter("nest_stripe_subscriptions_of_nobody") > before
    assert len(shop.harness.published_of(EnsureUser)) == 1
    # A late reply of auth is still used.
    await shop.settle()
    assert (await shop.record(made["id"]))["userId"] == "user_1"


async def test_gauges_report_pending_events_and_the_oldest_one(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    context = shop.harness.context
    await metrics.update_gauges(context.runs, context.known_drift, context.events)
    assert (metrics.PENDING_EVENTS._value.get(), metrics.PENDING_EVENTS_SINCE._value.get()) == (0, 0)
    events = shop.events_of(made["id"])
    began = shop.harness.now = in_milliseconds(shop.harness.now)
    for event in events:
        await shop.deliver(event, process=False)
        shop.harness.now += timedelta(minutes=1)
    await metrics.update_gauges(context.runs, context.known_drift, context.events)
    assert (metrics.PENDING_EVENTS._value.get(), metrics.PENDING_EVENTS_SINCE._value.get()) == (
        len(events),
        began.timestamp(),
    )


async def test_a_reopened_event_causes_another_reading(shop: Shop) -> None:
    made, events = shop.subscription_with_events()
    await shop.deliver(events[0])
    row = await shop.harness.context.events.find((await shop.event_rows())[0]["_id"])
    reopened = row.reopened()
    assert reopened.pending
    await shop.harness.database["stripe_events"].update_one(
        {"_id": row.id}, {"$set": {"handledAt": None, "outcome": None, "expiresAt": None}}
    )
    await shop.harness.deliver(FollowSubscription(subscription_id=made["id"], event_id=row.id))
    assert shop.reads(f"/v1/subscriptions/{made['id']}") == 2


def payment_events(shop: Shop) -> list[dict[str, Any]]:
    """The events about payments, in the order of creation."""
    kinds = ("payment_intent.", "charge.", "refund.", "invoice_payment.", "invoice.payment_action_required")
    return [event for event in shop.double.objects("event") if event["type"].startswith(kinds)]


def announced(shop: Shop) -> list[str]:
    """The names of the published events about payments."""
    return [type(message).__name__ for message in shop.harness.published if isinstance(message, PaymentEvent)]


async def refunded_payment(shop: Shop) -> str:
    """A payment intent with at least six events, about itself, its charge, its refunds and its invoice."""
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    shop.double.simulate.refund(made["id"], amount=100)
    shop.double.simulate.refund(made["id"], amount=200)
    return str(shop.payment_intent_of(made)["id"])


async def test_two_readings_at_most_settle_many_events_of_a_payment(shop: Shop) -> None:
    paid = await refunded_payment(shop)
    events = [event for event in payment_events(shop) if event["type"] in EVENT_HANDLERS]
    assert len(events) >= 6
    for event in events:
        await shop.deliver(event, process=False)
    assert shop.reads(f"/v1/payment_intents/{paid}") == 0
    await shop.settle()
    # One for the events about the payment intent, one for those found to belong to it.
    assert shop.reads(f"/v1/payment_intents/{paid}") <= 2
    assert {row["outcome"] for row in await shop.event_rows() if row["type"] in EVENT_HANDLERS} == {"read"}
    assert (await shop.payment(paid))["amountRefunded"] == 300
    assert announced(shop) == ["PaymentSucceeded", "PaymentRefunded"]


async def test_a_payment_event_after_a_reading_causes_another_reading(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    paid = shop.payment_intent_of(made)["id"]
    before = shop.reads(f"/v1/payment_intents/{paid}")
    shop.double.simulate.refund(made["id"], amount=100)
    await shop.deliver([each for each in shop.double.objects("event") if each["type"] == "charge.refunded"][-1])
    await shop.settle()
    shop.double.simulate.refund(made["id"], amount=200)
    await shop.deliver([each for each in shop.double.objects("event") if each["type"] == "charge.refunded"][-1])
    await shop.settle()
    assert shop.reads(f"/v1/payment_intents/{paid}") == before + 2
    assert [event.amount_refunded for event in shop.harness.published_of(PaymentRefunded)] == [100, 300]


async def test_concurrent_readings_of_a_payment_announce_each_change_once(
    shop: Shop, open_shop: Callable[..., Any]
) -> None:
    paid = await refunded_payment(shop)
    other: Shop = await open_shop()
    for event in payment_events(shop):
        await shop.deliver(event, process=False)
    # As after a rebalance during which messages are handled twice.
    for kind in (FindPayments, FollowPayment):
        commands_of_kind = [command for each in (shop, other) for command in each.harness.published_of(kind)]
        await asyncio.gather(*(each.harness.deliver(command) for command in commands_of_kind for each in (shop, other)))
    await shop.settle()
    await other.settle()
    assert sorted(announced(shop) + announced(other)) == ["PaymentRefunded", "PaymentSucceeded"]
    assert (await shop.payment(paid))["amountRefunded"] == 300
    assert {row["outcome"] for row in await shop.event_rows()} <= {"read", "not_followed"}
