"""Whatever comes of Stripe's webhooks, in whatever order and however often: the same end, and one mail an occasion."""

import random
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.stripe_api.parsing import subscription_of
from services.stripe_double import StripeApiError, StripeDouble
from shared.messages.billing.subscriptions import SubscriptionChanged, SubscriptionEnded, SubscriptionStarted
from tests.billing.conftest import Shop

FACTS = {
    "status": "status",
    "startsAt": "period_start",
    "cancelType": "cancel_type",
    "cancelAt": "ends_for_good_at",
    "cancelledAt": "canceled_at",
    "collectionPaused": "collection_paused",
}


@dataclass(frozen=True)
class Life:
    """What happens to one subscription, from its beginning on."""

    beginning: dict[str, Any]
    turns: tuple[str, ...]


BEGINNINGS: list[dict[str, Any]] = [{}, {"trial_days": 14}, {"payment_method": None}]
TURNS = (
    "plan_end",
    "plan_date",
    "reactivate",
    "decline",
    "recover",
    "pause",
    "resume",
    "pause_collection",
    "resume_collection",
    "end",
)
LIVES = st.builds(
    Life,
    beginning=st.sampled_from(BEGINNINGS),
    turns=st.lists(st.sampled_from(TURNS), max_size=5).map(tuple),
)


def turn(double: StripeDouble, made: dict[str, Any], what: str) -> None:
    """Play one turn of a life, if it is still possible."""
    try:
        match what:
            case "plan_end":
                double.simulate.cancel(made["id"])
            case "plan_date":
                double.simulate.cancel(made["id"], at="date")
            case "end":
                double.simulate.cancel(made["id"], at="now")
            case "decline" | "recover":
                getattr(double.simulate, what)(made["customer"])
            case _:
                getattr(double.simulate, what)(made["id"])
    except StripeApiError:
        return  # it is over, isn't paused, has no planned end


async def in_some_order(shop: Shop, made: dict[str, Any], turns: tuple[str, ...], dice: random.Random) -> None:
    """Play a life while its webhooks arrive none to three times each, in any order; the last one of all arrives."""
    known = 0
    pending: list[dict[str, Any]] = []
    steps = list(turns)
    while True:
        fresh = shop.events_of(made["id"])[known:]
        known += len(fresh)
        pending += [event for event in fresh for _ in range(dice.randrange(4))]
        if steps and (not pending or dice.random() < 0.5):
            turn(shop.double, made, steps.pop(0))
        elif pending:
            await shop.deliver(pending.pop(dice.randrange(len(pending))), follow=False)
            if dice.random() < 0.5:
                await shop.settle()
        elif not steps:
            break
    await shop.deliver(shop.events_of(made["id"])[-1], follow=False)
    await shop.settle()


async def as_stripe_says(shop: Shop, made: dict[str, Any]) -> bool:
    """Our record of a subscription is Stripe's; tells whether it ever lived."""
    record = await shop.record(made["id"])
    found = shop.double.object("subscription", made["id"])
    customer = shop.double.object("customer", made["customer"])
    truth = subscription_of({**found, "customer": customer, "discounts": []}, found["items"]["data"])
    assert {name: record[name] for name in FACTS} == {name: getattr(truth, fact) for name, fact in FACTS.items()}
    assert record["endsAt"] == (truth.ended_at or truth.period_end)
    return truth.lived


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(life=LIVES, seed=st.integers(0, 2**32), known=st.booleans())
async def test_any_order_and_repetition_of_a_lifes_webhooks_ends_the_same_with_one_welcome(
    shop: Shop,
    life: Life,
    seed: int,
    known: bool,  # noqa: FBT001
) -> None:
    shop.harness.clear()
    shop._settled = 0
    email = f"{len(shop.double.objects('customer'))}@example.com"
    metadata = {"user_id": email} if known else None
    made = shop.double.simulate.checkout(shop.price, email=email, metadata=metadata, **life.beginning)
    await in_some_order(shop, made, life.turns, random.Random(seed))

    lived = await as_stripe_says(shop, made)
    welcome = "welcome-trial" if "trial_days" in life.beginning else "welcome"
    assert shop.mails() == ([(welcome, email)] if lived else [])
    assert len(shop.harness.published_of(SubscriptionStarted)) == 1
    ended = (await shop.record(made["id"]))["status"] in ("canceled", "incomplete_expired")
    ends = len(shop.harness.published_of(SubscriptionEnded))
    assert ends == ended
    changes = [event for event in shop.events_of(made["id"]) if event["type"].endswith(("updated", "deleted"))]
    assert len(shop.harness.published_of(SubscriptionChanged)) + ends <= len(changes)
    assert {row["outcome"] for row in await shop.event_rows() if row["objectId"] == made["id"]} == {"read"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(life=LIVES, seed=st.integers(0, 2**32), share=st.floats(0.1, 1.0))
async def test_any_part_of_the_webhooks_that_come_late_ends_as_all_of_them(
    shop: Shop, life: Life, seed: int, share: float
) -> None:
    shop.harness.clear()
    shop._settled = 0
    dice = random.Random(seed)
    email = f"{len(shop.double.objects('customer'))}@example.com"
    made = shop.double.simulate.checkout(shop.price, email=email, **life.beginning)
    for what in life.turns:
        turn(shop.double, made, what)
    events = shop.events_of(made["id"])
    for event in dice.sample(events, max(1, round(share * len(events)))):
        await shop.deliver(event)
    await shop.settle()
    assert len(shop.mails()) == await as_stripe_says(shop, made)


@pytest.mark.parametrize("seed", range(3))
async def test_a_life_through_a_trial_its_end_a_renewal_and_a_cancellation_ends_as_stripe_says(
    shop: Shop, seed: int
) -> None:
    dice = random.Random(seed)
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", trial_days=14)
    await shop.double.clock.advance(timedelta(days=15))
    await shop.double.clock.advance(timedelta(days=31))
    shop.double.simulate.cancel(made["id"])
    await shop.double.clock.advance(timedelta(days=31))
    events = shop.events_of(made["id"]) * 3
    dice.shuffle(events)
    for event in events:
        await shop.deliver(event)
        await shop.settle()
    assert await as_stripe_says(shop, made)
    assert (await shop.record(made["id"]))["status"] == "canceled"
    assert Counter(shop.mails()) == {("welcome-trial", "ada@example.com"): 1}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), one_customer=st.booleans(), trial_days=st.sampled_from([None, 7]))
async def test_of_two_subscriptions_of_one_user_the_older_stays_in_whatever_order_they_are_told_of(
    shop: Shop,
    seed: int,
    one_customer: bool,  # noqa: FBT001
    trial_days: int | None,
) -> None:
    shop.harness.clear()
    shop._settled = 0
    dice = random.Random(seed)
    user_id = f"user_{len(shop.double.objects('subscription'))}"
    simulate, metadata = shop.double.simulate, {"user_id": user_id}
    older = simulate.checkout(shop.price, email=f"{user_id}@example.com", metadata=metadata)
    whose = {"customer": older["customer"]} if one_customer else {"email": f"{user_id}@example.org"}
    newer = simulate.checkout(shop.price, metadata=metadata, trial_days=trial_days, **whose)
    older, newer = sorted([older, newer], key=lambda made: (made["created"], made["id"]))
    events = [*shop.events_of(older["id"]), *shop.events_of(newer["id"])] * 3
    dice.shuffle(events)
    for event in events:
        await shop.deliver(event)
        if dice.random() < 0.5:
            await shop.settle()
    for made in (older, newer):
        for event in shop.events_of(made["id"]):
            await shop.deliver(event)
    await shop.settle()

    assert await as_stripe_says(shop, older)
    assert await as_stripe_says(shop, newer)
    kept, gone = await shop.record(older["id"]), await shop.record(newer["id"])
    assert kept["status"] in ("active", "trialing")
    assert (gone["status"], gone["duplicateOf"]) == ("canceled", kept["_id"])
    templates = Counter(template for template, _ in shop.mails())
    assert templates["duplicate-subscription"] == 1
    assert max(templates.values()) == 1 or templates == {"welcome": 2, "duplicate-subscription": 1}
    assert len([call for call in shop.double.log if call.method == "DELETE" and newer["id"] in call.path]) == 1
