"""Webhooks about subscriptions in any order, repeated and lost: the records equal Stripe's.

Each occasion causes one mail.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.billing.stripe_api.parsing import parse_subscription
from services.stripe_double import StripeApiError, StripeDouble
from shared.messages.billing.subscriptions import SubscriptionChanged, SubscriptionEnded, SubscriptionStarted
from tests.billing.conftest import Shop

FIELDS = {
    "status": "status",
    "startsAt": "period_start",
    "cancelType": "cancel_type",
    "cancelAt": "cancellation_takes_effect_at",
    "cancelledAt": "canceled_at",
    "collectionPaused": "collection_paused",
}


@dataclass(frozen=True)
class History:
    """The history of one subscription: options of its checkout, and the actions after it."""

    checkout: dict[str, Any]
    actions: tuple[str, ...]


CHECKOUTS: list[dict[str, Any]] = [{}, {"trial_days": 14}, {"payment_method": None}]
ACTIONS = (
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
HISTORIES = st.builds(
    History,
    checkout=st.sampled_from(CHECKOUTS),
    actions=st.lists(st.sampled_from(ACTIONS), max_size=5).map(tuple),
)
OPTIONS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ANY_ORDER = given(history=HISTORIES, seed=st.integers(0, 2**32), known=st.booleans())
ANY_PART = given(history=HISTORIES, seed=st.integers(0, 2**32), share=st.floats(0.1, 1.0))
TWO_SUBSCRIPTIONS = given(seed=st.integers(0, 2**32), one_customer=st.booleans(), trial_days=st.sampled_from([None, 7]))


def act(double: StripeDouble, made: dict[str, Any], action: str) -> None:
    """Perform an action on a subscription, if it is possible."""
    try:
        match action:
            case "plan_end":
                double.simulate.cancel(made["id"])
            case "plan_date":
                double.simulate.cancel(made["id"], at="date")
            case "end":
                double.simulate.cancel(made["id"], at="now")
            case "decline" | "recover":
                getattr(double.simulate, action)(made["customer"])
            case _:
                getattr(double.simulate, action)(made["id"])
    except StripeApiError:
        return  # It has ended, is not paused or has no planned end.


async def perform_with_webhooks(shop: Shop, made: dict[str, Any], actions: tuple[str, ...], random: Random) -> None:
    """Perform actions while their webhooks arrive up to three times each, in any order; the last one arrives."""
    known = 0
    pending: list[dict[str, Any]] = []
    remaining = list(actions)
    while True:
        new = shop.events_of(made["id"])[known:]
        known += len(new)
        pending += [event for event in new for _ in range(random.randrange(4))]
        if remaining and (not pending or random.random() < 0.5):
            act(shop.double, made, remaining.pop(0))
        elif pending:
            await shop.deliver(pending.pop(random.randrange(len(pending))), process=False)
            if random.random() < 0.5:
                await shop.settle()
        elif not remaining:
            break
    await shop.deliver(shop.events_of(made["id"])[-1], process=False)
    await shop.settle()


async def check_record(shop: Shop, made: dict[str, Any]) -> bool:
    """Check that our record equals the subscription in Stripe; returns whether that ever started."""
    record = await shop.record(made["id"])
    json = shop.double.object("subscription", made["id"])
    customer = shop.double.object("customer", made["customer"])
    stripe_subscription = parse_subscription({**json, "customer": customer, "discounts": []}, json["items"]["data"])
    assert {name: record[name] for name in FIELDS} == {
        name: getattr(stripe_subscription, field) for name, field in FIELDS.items()
    }
    assert record["endsAt"] == (stripe_subscription.ended_at or stripe_subscription.period_end)
    return stripe_subscription.started


def welcome_mails(shop: Shop) -> list[tuple[str, str]]:
    return [mail for mail in shop.mails() if mail[0] in ("welcome", "welcome-trial")]


async def end_mails_are_right(shop: Shop, made: dict[str, Any]) -> bool:
    """Whether a subscription that was cancelled, and no other one, has one mail about its end."""
    ends = [mail for mail in shop.mails() if mail[0] in ("trial-ended", "subscription-ended")]
    return len(ends) == ((await shop.record(made["id"]))["status"] == "canceled")


@settings(OPTIONS, max_examples=10)
@ANY_ORDER
async def test_any_order_and_repetition_of_webhooks_ends_with_equal_records(
    shop: Shop,
    history: History,
    seed: int,
    known: bool,  # noqa: FBT001
) -> None:
    shop.harness.clear()
    shop._settled = 0
    email = f"{len(shop.double.objects('customer'))}@example.com"
    metadata = {"user_id": email} if known else None
    made = shop.double.simulate.checkout(shop.price, email=email, metadata=metadata, **history.checkout)
    await perform_with_webhooks(shop, made, history.actions, Random(seed))

    started = await check_record(shop, made)
    welcome = "welcome-trial" if "trial_days" in history.checkout else "welcome"
    assert welcome_mails(shop) == ([(welcome, email)] if started else [])
    assert await end_mails_are_right(shop, made)
    assert len(shop.harness.published_of(SubscriptionStarted)) == 1
    ended = (await shop.record(made["id"]))["status"] in ("canceled", "incomplete_expired")
    ends = len(shop.harness.published_of(SubscriptionEnded))
    assert ends == ended
    changes = [event for event in shop.events_of(made["id"]) if event["type"].endswith(("updated", "deleted"))]
    assert len(shop.harness.published_of(SubscriptionChanged)) + ends <= len(changes)
    assert {row["outcome"] for row in await shop.event_rows() if row["objectId"] == made["id"]} == {"read"}


@settings(OPTIONS, max_examples=5)
@ANY_PART
async def test_any_part_of_the_webhooks_ends_with_equal_records(
    shop: Shop, history: History, seed: int, share: float
) -> None:
    shop.harness.clear()
    shop._settled = 0
    random = Random(seed)
    email = f"{len(shop.double.objects('customer'))}@example.com"
    made = shop.double.simulate.checkout(shop.price, email=email, **history.checkout)
    for action in history.actions:
        act(shop.double, made, action)
    events = shop.events_of(made["id"])
    for event in random.sample(events, max(1, round(share * len(events)))):
        await shop.deliver(event)
    await shop.settle()
    assert len(welcome_mails(shop)) == await check_record(shop, made)
    assert await end_mails_are_right(shop, made)


@pytest.mark.parametrize("seed", range(3))
async def test_trial_renewal_and_cancellation_end_with_an_equal_record(shop: Shop, seed: int) -> None:
    random = Random(seed)
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", trial_days=14)
    await shop.double.clock.advance(timedelta(days=15))
    await shop.double.clock.advance(timedelta(days=31))
    shop.double.simulate.cancel(made["id"])
    await shop.double.clock.advance(timedelta(days=31))
    events = shop.events_of(made["id"]) * 3
    random.shuffle(events)
    for event in events:
        await shop.deliver(event)
        await shop.settle()
    assert await check_record(shop, made)
    assert (await shop.record(made["id"]))["status"] == "canceled"
    assert Counter(shop.mails()) == {
        (template, "ada@example.com"): 1 for template in ("welcome-trial", "subscription-ended")
    }


@settings(OPTIONS, max_examples=5)
@TWO_SUBSCRIPTIONS
async def test_in_any_order_of_webhooks_the_older_subscription_is_kept(
    shop: Shop,
    seed: int,
    one_customer: bool,  # noqa: FBT001
    trial_days: int | None,
) -> None:
    shop.harness.clear()
    shop._settled = 0
    random = Random(seed)
    user_id = f"user_{len(shop.double.objects('subscription'))}"
    simulate, metadata = shop.double.simulate, {"user_id": user_id}
    older = simulate.checkout(shop.price, email=f"{user_id}@example.com", metadata=metadata)
    await shop.next_second()
    customer = {"customer": older["customer"]} if one_customer else {"email": f"{user_id}@example.org"}
    newer = simulate.checkout(shop.price, metadata=metadata, trial_days=trial_days, **customer)
    older, newer = sorted([older, newer], key=lambda made: (made["created"], made["id"]))
    events = [*shop.events_of(older["id"]), *shop.events_of(newer["id"])] * 3
    random.shuffle(events)
    for event in events:
        await shop.deliver(event)
        if random.random() < 0.5:
            await shop.settle()
    for made in (older, newer):
        for event in shop.events_of(made["id"]):
            await shop.deliver(event)
    await shop.settle()

    assert await check_record(shop, older)
    assert await check_record(shop, newer)
    kept, duplicate = await shop.record(older["id"]), await shop.record(newer["id"])
    assert kept["status"] in ("active", "trialing")
    assert (duplicate["status"], duplicate["duplicateOf"]) == ("canceled", kept["_id"])
    templates = Counter(template for template, _ in shop.mails())
    assert templates["duplicate-subscription"] == 1
    assert max(templates.values()) == 1 or templates == {"welcome": 2, "duplicate-subscription": 1}
    assert len([call for call in shop.double.log if call.method == "DELETE" and newer["id"] in call.path]) == 1


test_any_order_and_repetition_of_webhooks_ends_with_equal_records_in_many_examples = pytest.mark.slow(
    settings(OPTIONS, max_examples=50)(
        ANY_ORDER(test_any_order_and_repetition_of_webhooks_ends_with_equal_records.hypothesis.inner_test)
    )
)
test_any_part_of_the_webhooks_ends_with_equal_records_in_many_examples = pytest.mark.slow(
    settings(OPTIONS, max_examples=25)(
        ANY_PART(test_any_part_of_the_webhooks_ends_with_equal_records.hypothesis.inner_test)
    )
)
test_in_any_order_of_webhooks_the_older_subscription_is_kept_in_many_examples = pytest.mark.slow(
    settings(OPTIONS, max_examples=25)(
        TWO_SUBSCRIPTIONS(test_in_any_order_of_webhooks_the_older_subscription_is_kept.hypothesis.inner_test)
    )
)
