"""Audit entries about operators' commands and queries."""

from typing import Any

import pytest

from shared.messages import SERVICE, Caller
from shared.messages.billing.disputes import ListDisputes
from shared.messages.billing.history import ListStripeEvents
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


def entries(shop: Shop) -> list[tuple[Any, ...]]:
    return [(entry.action, entry.refused_as, entry.user_id, entry.resource_id) for entry in shop.harness.recorded]


async def refused(shop: Shop, message: Any) -> str:
    with pytest.raises(Refused) as refusal:
        await shop.harness.deliver(message, caller=OPERATOR)
    return refusal.value.code


@pytest.mark.parametrize(
    ("command", "action"),
    [
        (ReconcileSubscriptions(), "reconcile_subscriptions"),
        (SweepStripeEvents(), "sweep_stripe_events"),
        (ReplayStripeEvents(event_ids=("evt_1",)), "replay_stripe_events"),
        (ImportStripeAccount(), "import_stripe_account"),
    ],
)
async def test_beginning_a_run_is_audited_with_its_id_and_its_refusal_too(
    shop: Shop, command: Any, action: str
) -> None:
    run_id = (await shop.harness.deliver(command, caller=OPERATOR))["id"]
    assert await refused(shop, command) == "stripe_run_under_way"
    assert entries(shop) == [(action, None, None, run_id), (action, "stripe_run_under_way", None, None)]


async def test_stopping_resuming_and_reading_a_run_are_audited_with_its_id(shop: Shop) -> None:
    run_id = (await shop.harness.deliver(ReconcileSubscriptions(), caller=OPERATOR))["id"]
    shop.harness.clear()
    for message in (StopStripeRun(run_id=run_id), ResumeStripeRun(run_id=run_id), ListStripeDifferences(run_id=run_id)):
        await shop.harness.deliver(message, caller=OPERATOR)
    await refused(shop, StopStripeRun(run_id="striperun_unknown"))
    assert entries(shop) == [
        ("stop_stripe_run", None, None, run_id),
        ("resume_stripe_run", None, None, run_id),
        ("list_stripe_differences", None, None, run_id),
        ("stop_stripe_run", "not_found", None, None),
    ]


async def test_scheduled_runs_and_progress_queries_are_not_audited(shop: Shop) -> None:
    run_id = (await shop.harness.deliver(SweepStripeEvents(), caller=SERVICE))["id"]
    await shop.harness.deliver(GetStripeRun(run_id=run_id), caller=OPERATOR)
    await shop.harness.deliver(ListStripeRuns(), caller=OPERATOR)
    assert entries(shop) == []


async def test_reading_subscriptions_and_payments_is_audited_with_the_user(shop: Shop) -> None:
    subscription_json = shop.double.simulate.checkout(
        shop.price, email="ada@example.com", metadata={"user_id": "user_ada"}
    )
    await shop.deliver_all()
    subscription = await shop.record(subscription_json["id"])
    for query in (
        GetSubscription(subscription_id=subscription_json["id"]),
        ListPayments(user_id="user_ada"),
        ListPayments(),
        ListStripeEvents(user_id="user_ada"),
    ):
        await shop.harness.deliver(query, caller=OPERATOR)
    assert entries(shop) == [
        ("get_subscription", None, "user_ada", subscription["_id"]),
        ("list_payments", None, "user_ada", None),
        ("list_payments", None, None, None),
        ("list_stripe_events", None, "user_ada", None),
    ]


async def test_an_unknown_id_is_not_written_to_the_audit(shop: Shop) -> None:
    await refused(shop, GetSubscription(user_id="user_unknown"))
    for query in (ListPayments, ListDisputes, ListStripeEvents):
        await shop.harness.deliver(query(user_id="user_unknown"), caller=OPERATOR)
    assert entries(shop) == [
        ("get_subscription", "not_found", None, None),
        ("list_payments", None, None, None),
        ("list_disputes", None, None, None),
        ("list_stripe_events", None, None, None),
    ]
