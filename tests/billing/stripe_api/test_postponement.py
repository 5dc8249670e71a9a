"""Storms of readings: postponed into timers, followed in the end, and behind the calls of callers who wait."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.billing.stripe_api import families
from services.billing.stripe_api.call_queue import CallContext, Priority, StripeBusy, call_context
from services.billing.stripe_api.deadlines import REPLY_SECONDS
from services.billing.stripe_api.reschedule import prioritized
from services.stripe_double import FaultKind
from shared.bus.envelope import Envelope, unix_milliseconds
from shared.bus.work import Work
from shared.messages import Message
from shared.messages.billing.runs import ContinueStripeRun
from shared.messages.billing.subscriptions import (
    CreatePortalSession,
    FollowSubscription,
    GetSubscriptionHeartbeat,
    GetSubscriptionStatus,
    SubscriptionStarted,
)
from shared.messages.billing.trials import FinishTrial, StartTrial
from tests.billing.conftest import ADA, Shop, counter
from tests.billing.trials.test_handlers import command, created
from tests.stack import eventually

STORM = 60


def follow(stripe_id: str) -> FollowSubscription:
    return FollowSubscription(key=stripe_id, subscription_id=stripe_id)


def subscribe(shop: Shop, count: int) -> list[FollowSubscription]:
    """Subscriptions of so many users in Stripe, and the commands that read them."""
    made = [
        shop.double.simulate.checkout(shop.price, email=f"p{each}@example.com", metadata={"user_id": f"user_{each}"})
        for each in range(count)
    ]
    return [follow(each["id"]) for each in made]


async def postponed(shop: Shop) -> list[FollowSubscription]:
    return [message for _, message in await shop.harness.delayed() if isinstance(message, FollowSubscription)]


@pytest.fixture
async def slow_shop(open_shop: Callable[..., Any]) -> Shop:
    """A shop with the lowest pace of an account in test mode."""
    shop: Shop = await open_shop(stripe_calls_per_second=20)
    return shop


async def test_a_storm_is_postponed_at_the_pace_of_stripe_and_followed_in_the_end(slow_shop: Shop) -> None:
    shop = slow_shop
    commands, began = subscribe(shop, STORM), time.monotonic()
    before = counter("nest_stripe_commands_postponed", type="billing.follow-subscription", family="subscriptions")
    await asyncio.gather(*map(shop.harness.deliver, commands))
    # None of them has waited for its turn.
    assert time.monotonic() - began < STORM / 20
    times = [at for at, message in await shop.harness.delayed() if isinstance(message, FollowSubscription)]
    assert STORM / 3 < len(times) < STORM
    assert times[-1] - times[0] == pytest.approx(timedelta(seconds=len(times) / 20), abs=timedelta(seconds=1))
    after = counter("nest_stripe_commands_postponed", type="billing.follow-subscription", family="subscriptions")
    assert after - before == len(times)
    again = await postponed(shop)
    assert {each.attempt for each in again} == {1}
    recorded = await shop.count("subscriptions")
    assert recorded == STORM - len(again)
    # The timers of the storm are as many commands again, delivered here one after the other.
    for each in again:
        await shop.harness.deliver(each)
    assert await shop.count("subscriptions") == STORM


async def test_trials_and_portals_go_before_a_storm(slow_shop: Shop) -> None:
    shop = slow_shop
    customer = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.harness.deliver(follow(customer["id"]))
    storm = [asyncio.create_task(shop.harness.deliver(each)) for each in subscribe(shop, STORM)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    portal = await shop.harness.deliver(CreatePortalSession(user_id="user_ada"), seconds=10)
    assert portal["url"]
    await shop.harness.deliver(command(key="user_eve", user_id="user_eve", email="eve@example.com"), seconds=10)
    (finish,) = shop.harness.published_of(FinishTrial)
    await shop.harness.deliver(finish, seconds=10)
    assert time.monotonic() - began < 3
    assert created(shop)[1] == STORM + 2
    await asyncio.gather(*storm)


async def test_heartbeats_and_status_need_no_call_to_stripe(slow_shop: Shop) -> None:
    shop = slow_shop
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.harness.deliver(follow(made["id"]))
    calls = len(shop.double.log)
    await shop.harness.deliver(GetSubscriptionHeartbeat(user_id="user_ada"))
    await shop.harness.deliver(GetSubscriptionStatus(user_id="user_ada"))
    assert len(shop.double.log) == calls


async def test_a_hanging_portal_refuses_no_trial(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop()
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.harness.deliver(follow(made["id"]))
    shop.double.faults.add(FaultKind.HANG, path="/v1/billing_portal/*")
    stripe = shop.harness.context.stripe
    hanging = [asyncio.create_task(stripe.portal_url(made["customer"])) for _ in range(100)]
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await shop.harness.deliver(command(key="user_eve", user_id="user_eve", email="eve@example.com"), seconds=10)
    (finish,) = shop.harness.published_of(FinishTrial)
    await shop.harness.deliver(finish, seconds=10)
    assert time.monotonic() - began < 8
    assert not any(task.done() for task in hanging)
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_readings_of_a_hanging_family_are_postponed_when_its_calls_are_taken(
    open_shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "CONCURRENT_CALLS", 2)
    shop: Shop = await open_shop()
    commands = subscribe(shop, 12)
    shop.double.faults.add(FaultKind.HANG, path="/v1/subscriptions/*")
    storm = [asyncio.create_task(shop.harness.deliver(each)) for each in commands]
    await eventually(lambda: sum(task.done() for task in storm) == 10)
    hanging = [task for task in storm if not task.done()]
    assert (len(hanging), len(await postponed(shop))) == (2, 10)
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_burst_that_stripe_answers_at_once_is_not_postponed(
    open_shop: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "CONCURRENT_CALLS", 2)
    monkeypatch.setattr(families, "INITIAL_CALL_SECONDS", 0.02)
    shop: Shop = await open_shop()
    await asyncio.gather(*(shop.harness.deliver(each) for each in subscribe(shop, 12)))
    assert await postponed(shop) == []
    assert len(shop.harness.published_of(SubscriptionStarted)) == 12


def envelope(message: Message, *, seconds: float | None) -> Envelope:
    now = unix_milliseconds()
    deadline = 0 if seconds is None else now + int(1000 * seconds)
    return Envelope(
        id="1" * 32, wire=message.wire, topic=message.topic, key="k", body=b"{}", time=now, deadline=deadline
    )


@pytest.mark.parametrize(
    ("message", "seconds", "priority", "postponable"),
    [
        (command(), 10, Priority.COMMAND, False),
        (command(), None, Priority.BACKGROUND, False),
        (command(), -1, Priority.BACKGROUND, False),
        (command(), 1.5, Priority.BACKGROUND, False),
        (CreatePortalSession(user_id="user_ada"), 10, Priority.QUERY, False),
        (CreatePortalSession(user_id="user_ada"), None, Priority.QUERY, False),
        (follow("sub_1"), None, Priority.BACKGROUND, True),
        (ContinueStripeRun(run_id="run_1", step=1), None, Priority.BACKGROUND, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else str(value),
)
async def test_priority_follows_from_the_message(
    message: Message,
    seconds: float | None,
    priority: Priority,
    postponable: bool,  # noqa: FBT001
    shop: Shop,
) -> None:
    seen: list[CallContext | None] = []

    async def handle(_message: Message, _work: Work, _context: Any) -> None:
        seen.append(call_context())

    harness = shop.harness
    work = Work(envelope(message, seconds=seconds), now=harness.now, ids=harness.ids, sealer=harness.sealer)
    await prioritized(handle)(message, work, None)
    (context,) = seen
    assert context is not None
    assert (context.priority, context.postponable) == (priority, postponable)
    left = context.deadline - asyncio.get_running_loop().time()
    assert left == (pytest.approx(seconds - REPLY_SECONDS, abs=0.2) if seconds == 10 else float("inf"))
    assert call_context() is None


async def test_a_postponed_command_keeps_none_of_its_work(shop: Shop) -> None:
    async def handle(_message: Message, work: Work, _context: Any) -> None:
        work.publish(StartTrial.model_validate(command().model_dump()))
        raise StripeBusy("subscriptions", 7.0)

    harness, message = shop.harness, follow("sub_1")
    work = Work(envelope(message, seconds=None), now=harness.now, ids=harness.ids, sealer=harness.sealer)
    await prioritized(handle)(message, work, None)
    ((at, sent),) = work.timers
    assert (at - work.now, sent.wire, sent.key) == (timedelta(seconds=7), "billing.follow-subscription", "k")
    assert len(work.outgoing) == 1
