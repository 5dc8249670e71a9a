"""Invariants of the account after any sequence of actions."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.stripe_double import StripeDouble
from tests.stripe_double.random_workload import RandomWorkload
from tests.stripe_double.shop import START, Shop, open_shop


def last_snapshots(shop: Shop, prefix: str) -> dict[str, Any]:
    """Return the object in the last event of each object, for event types with a prefix."""
    snapshots = {}
    for event in shop.double.objects("event"):
        if event["type"].startswith(prefix):
            snapshots[event["data"]["object"]["id"]] = event["data"]["object"]
    return snapshots


def objects_by_id(shop: Shop, kind: str) -> dict[str, Any]:
    return {entry["id"]: entry for entry in shop.double.objects(kind)}


def check_last_events(shop: Shop) -> None:
    """The last event of each object has its present state."""
    assert last_snapshots(shop, "customer.subscription.") == objects_by_id(shop, "subscription")
    assert last_snapshots(shop, "payment_intent.") == objects_by_id(shop, "payment_intent")
    assert last_snapshots(shop, "charge.dispute.") == objects_by_id(shop, "dispute")


def check_previous_attributes(shop: Shop) -> None:
    """The previous attributes of each event have the values of the event before."""
    last: dict[str, Any] = {}
    for event in shop.double.objects("event"):
        if event["type"] != "customer.subscription.updated":
            continue
        subscription = event["data"]["object"]
        before = last.get(subscription["id"])
        for name, old in event["data"]["previous_attributes"].items():
            if before is not None and not isinstance(old, dict):
                assert before[name] == old, (event["type"], name)
        last[subscription["id"]] = subscription


def check_amounts(shop: Shop) -> None:
    """Invoices equal their lines and payments; charges equal their refunds."""
    received: Counter[str] = Counter()
    for intent in shop.double.account.all("payment_intent"):
        received[intent["_invoice"]] += intent["amount_received"]
    for invoice in shop.double.objects("invoice"):
        lines = sum(line["amount"] for line in invoice["lines"]["data"])
        off = sum(entry["amount"] for entry in invoice["total_discount_amounts"])
        assert invoice["total"] == lines - off
        if invoice["status"] == "draft":
            continue
        assert invoice["amount_due"] == max(0, invoice["total"] + invoice["starting_balance"])
        assert received[invoice["id"]] == (invoice["amount_paid"] if invoice["status"] == "paid" else 0)
    refunded: Counter[str] = Counter()
    for refund in shop.double.objects("refund"):
        refunded[refund["charge"]] += refund["amount"]
    for charge in shop.double.objects("charge"):
        assert charge["amount_refunded"] == refunded[charge["id"]] <= charge["amount_captured"]


def check_statuses(shop: Shop) -> None:
    """The status of each subscription fits its latest invoice, its periods and its cancellation."""
    invoices, now = objects_by_id(shop, "invoice"), shop.double.clock.now()
    for subscription in shop.double.objects("subscription"):
        status, latest = subscription["status"], invoices[subscription["latest_invoice"]]
        ended = status in {"canceled", "incomplete_expired"}
        assert ended == (subscription["ended_at"] is not None)
        if status in {"active", "trialing", "past_due"}:
            assert all(item["current_period_end"] > now for item in subscription["items"]["data"])
        if status in {"past_due", "incomplete"}:
            assert latest["status"] == "open"
        if status == "trialing":
            assert (latest["status"], latest["total"]) == ("paid", 0)
        if ended:
            assert latest["auto_advance"] is False
        if subscription["cancel_at_period_end"]:
            assert subscription["cancel_at"] is not None
            assert subscription["canceled_at"] is not None


def check_times(entries: Iterable[dict[str, Any]]) -> None:
    times = [entry["created"] for entry in entries]
    assert times == sorted(times)


@given(st.integers(0, 2**32))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_after_any_workload_amounts_statuses_and_events_are_consistent(seed: int) -> None:
    async with open_shop(start=START) as shop:
        shop.double.clock.freeze()
        await RandomWorkload(shop.double, shop.price, seed=seed).run(customers=6, days=75)
        check_last_events(shop)
        check_previous_attributes(shop)
        check_amounts(shop)
        check_statuses(shop)
        check_times(shop.double.objects("event"))


async def test_two_hundred_customers_perform_every_action_and_survive_a_restart(tmp_path: Path) -> None:
    async with open_shop(start=START, folder=tmp_path) as shop:
        shop.double.clock.freeze()
        workload = RandomWorkload(shop.double, shop.price, seed=1)
        await workload.run(customers=200, days=90)
        actions = "decline recover cancel_now cancel_at_period_end cancel_at_date reactivate pause resume duplicate"
        actions += " dispute close_dispute refund delete_customer trial authentication bank_debit"
        assert set(actions.split()) <= set(workload.performed)
        check_amounts(shop)
        check_statuses(shop)
        kinds = ("customer", "subscription", "invoice", "payment_intent", "charge", "dispute", "refund", "event")
        before = {kind: shop.double.objects(kind) for kind in kinds}
        port = urlsplit(shop.double.url).port or 0
    async with StripeDouble(folder=tmp_path, start=START, port=port) as double:
        assert {kind: double.objects(kind) for kind in kinds} == before


async def test_the_same_seed_makes_the_same_events() -> None:
    async def events() -> list[tuple[str, int]]:
        async with open_shop(start=START) as shop:
            shop.double.clock.freeze()
            await RandomWorkload(shop.double, shop.price, seed=9).run(customers=4, days=40)
            first = shop.double.objects("event")[0]["created"]
            return [(event["type"], event["created"] - first) for event in shop.double.objects("event")]

    assert await events() == await events()
