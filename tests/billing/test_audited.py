"""What operators ask and order of billing ends in the audit; what the clock orders does not."""

from typing import Any

import pytest

from shared.messages import SERVICE, Caller
from shared.messages.billing.disputes import ListDisputes
from shared.messages.billing.payments import ListPayments
from shared.messages.billing.runs import (
    GetStripeRun,
    ImportStripeAccount,
    ListStripeDifferences,
    ListStripeRuns,
    ReconcileSubscriptions,
    ReplayStripeEvents,
    ResumeStripeRun,
    StopStripeRun,
    SweepStripeEvents,
)
from shared.messages.billing.subscriptions import GetSubscription
from tests.billing.conftest import Shop
from tests.service_harness import Refused

OPERATOR = Caller(kind="internal", client_ip="10.0.0.1")


def told(shop: Shop) -> list[tuple[Any, ...]]:
    return [(entry.action, entry.refused_as, entry.user_id, entry.resource_id) for entry in shop.harness.recorded]


async def refused(shop: Shop, message: Any) -> str:
    with pytest.raises(Refused) as refusal:
        await shop.harness.deliver(message, caller=OPERATOR)
    return refusal.value.code


@pytest.mark.parametrize(
    ("order", "action"),
    [
        (ReconcileSubscriptions(), "reconcile_subscriptions"),
        (SweepStripeEvents(), "sweep_stripe_events"),
        (ReplayStripeEvents(event_ids=("evt_1",)), "replay_stripe_events"),
        (ImportStripeAccount(), "import_stripe_account"),
    ],
)
async def test_a_run_that_is_begun_is_told_by_its_id_and_one_in_the_way_too(
    shop: Shop, order: Any, action: str
) -> None:
    run_id = (await shop.harness.deliver(order, caller=OPERATOR))["id"]
    assert await refused(shop, order) == "stripe_run_under_way"
    assert told(shop) == [(action, None, None, run_id), (action, "stripe_run_under_way", None, None)]


async def test_a_run_that_is_stopped_resumed_and_read_is_told_by_its_id(shop: Shop) -> None:
    run_id = (await shop.harness.deliver(ReconcileSubscriptions(), caller=OPERATOR))["id"]
    shop.harness.clear()
    for message in (StopStripeRun(run_id=run_id), ResumeStripeRun(run_id=run_id), ListStripeDifferences(run_id=run_id)):
        await shop.harness.deliver(message, caller=OPERATOR)
    await refused(shop, StopStripeRun(run_id="striperun_typed"))
    assert told(shop) == [
        ("stop_stripe_run", None, None, run_id),
        ("resume_stripe_run", None, None, run_id),
        ("list_stripe_differences", None, None, run_id),
        ("stop_stripe_run", "not_found", None, None),
    ]


async def test_what_the_clock_orders_and_how_far_runs_are_is_not_told(shop: Shop) -> None:
    run_id = (await shop.harness.deliver(SweepStripeEvents(), caller=SERVICE))["id"]
    await shop.harness.deliver(GetStripeRun(run_id=run_id), caller=OPERATOR)
    await shop.harness.deliver(ListStripeRuns(), caller=OPERATOR)
    assert told(shop) == []


async def test_who_reads_what_somebody_pays_is_told_of_with_the_user(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata={"user_id": "user_ada"})
    await shop.deliver_all()
    subscription = await shop.record(made["id"])
    for query in (GetSubscription(subscription_id=made["id"]), ListPayments(user_id="user_ada"), ListPayments()):
        await shop.harness.deliver(query, caller=OPERATOR)
    assert told(shop) == [
        ("get_subscription", None, "user_ada", subscription["_id"]),
        ("list_payments", None, "user_ada", None),
        ("list_payments", None, None, None),
    ]


async def test_who_reads_of_nobody_is_told_of_without_what_was_typed(shop: Shop) -> None:
    await refused(shop, GetSubscription(user_id="user_typed"))
    for query in (ListPayments(user_id="user_typed"), ListDisputes(user_id="user_typed")):
        await shop.harness.deliver(query, caller=OPERATOR)
    assert told(shop) == [
        ("get_subscription", "not_found", None, None),
        ("list_payments", None, None, None),
        ("list_disputes", None, None, None),
    ]
