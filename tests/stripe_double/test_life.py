"""Whatever happens, the account adds up and its events tell all of it."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.stripe_double import StripeDouble
from tests.stripe_double.random_workload import RandomWorkload
from tests.stripe_double.shop import USES_STRIPE, Shop, open_shop

pytestmark = USES_STRIPE
START = datetime(2026, 1, 31, 12, tzinfo=UTC)


def last_told(shop: Shop, prefix: str) -> dict[str, Any]:
    """The last snapshot of each object that events of a kind have told."""
    told = {}
    for event in shop.double.objects("event"):
        if event["type"].startswith(prefix):
            told[event["data"]["object"]["id"]] = event["data"]["object"]
    return told


def stored(shop: Shop, kind: str) -> dict[str, Any]:
    return {entry["id"]: entry for entry in shop.double.objects(kind)}


def events_tell_the_end_state(shop: Shop) -> None:
    assert last_told(shop, "customer.subscription.") == stored(shop, "subscription")
    assert last_told(shop, "payment_intent.") == stored(shop, "payment_intent")
    assert last_told(shop, "charge.dispute.") == stored(shop, "dispute")


def changes_are_told_step_by_step(shop: Shop) -> None:
    """Each event's previous attributes are what the event before showed."""
    known: dict[str, Any] = {}
    for event in shop.double.objects("event"):
        if event["type"] != "customer.subscription.updated":
            continue
        subscription = event["data"]["object"]
        for name, old in event["data"]["previous_attributes"].items():
            before = known.get(subscription["id"])
            if before is not None and not isinstance(old, dict):
                assert before[name] == old, (event["type"], name)
        known[subscription["id"]] = subscription


def money_adds_up(shop: Shop) -> None:
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


def standings_make_sense(shop: Shop) -> None:
    invoices, now = stored(shop, "invoice"), shop.double.clock.now()
    for subscription in shop.double.objects("subscription"):
        status, latest = subscription["status"], invoices[subscription["latest_invoice"]]
        over = status in {"canceled", "incomplete_expired"}
        assert over == (subscription["ended_at"] is not None)
        if status in {"active", "trialing", "past_due"}:
            assert all(item["current_period_end"] > now for item in subscription["items"]["data"])
        if status in {"past_due", "incomplete"}:
            assert latest["status"] == "open"
        if status == "trialing":
            assert (latest["status"], latest["total"]) == ("paid", 0)
        if over:
            assert latest["auto_advance"] is False
        if subscription["cancel_at_period_end"]:
            assert subscription["cancel_at"] is not None
            assert subscription["canceled_at"] is not None


def times_only_grow(entries: Iterable[dict[str, Any]]) -> None:
    times = [entry["created"] for entry in entries]
    assert times == sorted(times)


@given(st.integers(0, 2**32))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_after_any_life_the_account_adds_up_and_its_events_tell_it(seed: int) -> None:
    async with open_shop(start=START) as shop:
        shop.double.clock.freeze()
        life = RandomWorkload(shop.double, shop.price, seed=seed)
        await life.run(customers=6, days=75)
        events_tell_the_end_state(shop)
        changes_are_told_step_by_step(shop)
        money_adds_up(shop)
        standings_make_sense(shop)
        times_only_grow(shop.double.objects("event"))


async def test_a_life_of_two_hundred_customers_plays_every_verb_and_survives_a_restart(tmp_path: Path) -> None:
    async with open_shop(start=START, folder=tmp_path) as shop:
        shop.double.clock.freeze()
        life = RandomWorkload(shop.double, shop.price, seed=1)
        await life.run(customers=200, days=90)
        verbs = "decline recover cancel_now cancel_at_period_end cancel_at_date reactivate pause resume duplicate"
        verbs += " dispute close_dispute refund delete_customer trial authentication bank_debit"
        assert set(verbs.split()) <= set(life.performed)
        money_adds_up(shop)
        standings_make_sense(shop)
        kinds = ("customer", "subscription", "invoice", "payment_intent", "charge", "dispute", "refund", "event")
        before = {kind: shop.double.objects(kind) for kind in kinds}
    async with StripeDouble(folder=tmp_path, start=START) as double:
        assert {kind: double.objects(kind) for kind in kinds} == before


async def test_one_seed_plays_one_life() -> None:
    async def told() -> list[tuple[str, int]]:
        async with open_shop(start=START) as shop:
            shop.double.clock.freeze()
            await RandomWorkload(shop.double, shop.price, seed=9).run(customers=4, days=40)
            began = shop.double.objects("event")[0]["created"]
            return [(event["type"], event["created"] - began) for event in shop.double.objects("event")]

    assert await told() == await told()
