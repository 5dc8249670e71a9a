"""Stripe runs by the `nest` command: verify, reconcile, sweep, replay, import of an account; and a renewal storm."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from services.billing.stripe_api.call_queue import CallQueue
from services.billing.stripe_api.calls import Calls
from services.embedded import demo
from services.stripe_double import DeliveryFaults, StripeDouble
from tests.end_to_end.flows import Mongo, database
from tests.forked import Completed
from tests.stack import RunNest, Stack, eventually
from tests.stripe_double.random_workload import RandomWorkload

IMPORTED_DAYS: Final = 60
STORM: Final = 30
"""Subscriptions that renew at once."""
KEY: Final = "sk_test_of_an_existing_account"
BOOKS: Final = ("provider_mappings", "subscriptions", "payments", "disputes", "trials", "stripe_drift")
"""Collections with records of customers."""


def parsed(completed: Completed) -> dict[str, Any]:
    """Parse what `--json` printed."""
    answer: dict[str, Any] = json.loads(completed.out)
    return answer


class Billing:
    """The database of billing."""

    def __init__(self, nest: Stack, mongo_client: Mongo) -> None:
        self.database = database(nest, mongo_client, "billing")

    async def has(self, collection: str, count: int) -> None:
        """Wait until a collection has so many documents."""
        await eventually(lambda: self.database[collection].count_documents({}) == count, what=f"{count} {collection}")

    async def handled_all_events(self, stripe: StripeDouble) -> None:
        """Wait until every event of the Stripe account is stored, and none is pending."""
        events = self.database["stripe_events"]
        ids = [each["id"] for each in stripe.objects("event")]
        await eventually(
            lambda: events.count_documents({"stpEventId": {"$in": ids}}) == len(ids), what="every event stored"
        )
        await eventually(lambda: not events.count_documents({"handledAt": None}), what="the last event handled")

    def books(self) -> dict[str, list[dict[str, Any]]]:
        return {name: list(self.database[name].find().sort("_id")) for name in BOOKS}

    async def is_still(self) -> bool:
        """Whether no subscription changes for a second, so that no Stripe object is being read."""
        before = self.books()["subscriptions"]
        await asyncio.sleep(1)
        return bool(before) and before == self.books()["subscriptions"]


@pytest.fixture(scope="module")
async def quiet(run_nest: RunNest) -> AsyncIterator[Stack]:
    """A Nest whose Stripe account is used by one test at a time, which leaves no drift."""
    # With few slots a small storm would occupy them all.
    async with run_nest(settings={"NEST_IN_FLIGHT": "8"}) as stack:
        yield stack


@pytest.mark.slow
async def test_sweep_repairs_three_days_of_lost_webhooks(quiet: Stack, mongo_client: Mongo) -> None:
    nest, billing, price = quiet, Billing(quiet, mongo_client), quiet.environment["NEST_STRIPE_TRIAL_PRICE"]
    nest.stripe.simulate.checkout(price, email="ada@example.com")
    await nest.stripe.webhooks.drain(30)
    await billing.has("subscriptions", 1)

    nest.stripe.webhooks.faults = DeliveryFaults(loss_rate=1.0)
    for day in range(3):
        made = nest.stripe.simulate.checkout(price, email=f"day{day}@example.com")
        nest.stripe.simulate.dispute(made["id"])
        await nest.stripe.clock.advance(timedelta(days=1))
    nest.stripe.webhooks.faults = DeliveryFaults()

    drift = await nest.command("stripe", "verify", "--json")
    assert drift.code == 1, drift.err
    kinds = {(each["object"], each["kind"]) for each in parsed(drift)["found"]}
    assert kinds == {(name, "missing_here") for name in ("subscription", "payment", "dispute")}

    swept = await nest.command("stripe", "sweep")
    assert swept.code == 0, swept.err
    assert "handed over" in swept.out
    await billing.has("subscriptions", 4)
    await billing.has("disputes", 3)
    for day in range(3):
        await nest.mail(f"day{day}@example.com", subject="welcome")
    await billing.handled_all_events(nest.stripe)

    again = await nest.command("stripe", "sweep", "--json")
    assert parsed(again)["counts"]["handed_over"] == 0
    clean = await nest.command("stripe", "verify")
    assert clean.code == 0, clean
    for day in range(3):
        assert len(nest.inbox.arrivals(f"day{day}@example.com")) == 1


@pytest.mark.slow
async def test_reconcile_repairs_drift_that_verify_lists(quiet: Stack, mongo_client: Mongo) -> None:
    nest, billing = quiet, Billing(quiet, mongo_client)
    made = nest.stripe.simulate.checkout(nest.environment["NEST_STRIPE_TRIAL_PRICE"], email="eve@example.com")
    await nest.stripe.webhooks.drain(30)
    await billing.handled_all_events(nest.stripe)
    # A read that is under way would repair the drift.
    await eventually(billing.is_still, what="the last read of the subscription")
    spoiled = billing.database["subscriptions"].update_one(
        {"stpSubscriptionId": made["id"]}, {"$set": {"status": "past_due"}, "$inc": {"version": 1}}
    )
    assert spoiled.modified_count == 1

    drift = await nest.command("stripe", "verify")
    assert drift.code == 1
    title, line = drift.out.splitlines()
    assert title.split("\t")[:2] == ["OBJECT", "STRIPE ID"]
    assert line.split("\t")[1] == made["id"]
    assert line.endswith("status: past_due -> active")

    reconciled = await nest.command("stripe", "reconcile", "--json")
    assert (reconciled.code, parsed(reconciled)["counts"]["repaired"]) == (0, 1), reconciled
    assert (await nest.command("stripe", "verify")).code == 0
    runs = await nest.command("stripe", "runs", "--json")
    assert [each["kind"] for each in parsed(runs)["runs"]][:3] == ["verify", "reconcile", "verify"]


async def test_run_is_started_stopped_and_resumed(quiet: Stack) -> None:
    nest = quiet
    started = await nest.command("stripe", "replay", "--since", "2026-01-01", "--no-wait")
    run_id = started.out.strip()
    stopped = await nest.command("stripe", "stop", run_id)
    assert stopped.out.split()[0] == run_id
    resumed = await nest.command("stripe", "replay", "--run", run_id, "--json")
    assert (resumed.code, parsed(resumed)["status"]) == (0, "done")
    unknown = await nest.command("stripe", "verify", "--run", "striperun_missing")
    assert (unknown.code, "not_found" in unknown.err) == (1, True)


@pytest.mark.slow
async def test_renewal_storm_delays_no_heartbeat_and_is_followed_in_the_end(
    quiet: Stack, mongo_client: Mongo, monkeypatch: pytest.MonkeyPatch
) -> None:
    nest, billing, price = quiet, Billing(quiet, mongo_client), quiet.environment["NEST_STRIPE_TRIAL_PRICE"]
    made = [nest.stripe.simulate.checkout(price, email=f"renewal{each}@example.com") for each in range(STORM)]
    await billing.handled_all_events(nest.stripe)
    tokens = await nest.log_in("renewal0@example.com")
    headers = {"authorization": f"bearer {tokens['access_token']}"}
    pace = CallQueue(20)
    monkeypatch.setattr(Calls, "_queue", property(lambda _calls: pace), raising=False)
    storm_is_over = asyncio.Event()
    seconds: list[float] = []

    async def caller() -> None:
        while not storm_is_over.is_set():
            began = time.monotonic()
            response = await nest.call("get_subscription_status", version="2020-12-14", **headers)
            seconds.append(time.monotonic() - began)
            assert response.status_code == 204, response.text
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(caller())
        await nest.stripe.clock.advance(timedelta(days=31))
        await billing.handled_all_events(nest.stripe)
        storm_is_over.set()
    # Behind the storm they would wait for 10 s, and be answered 504.
    assert sorted(seconds)[len(seconds) * 95 // 100] < 4
    for each in made:
        stored = billing.database["subscriptions"].find_one({"stpSubscriptionId": each["id"]})
        assert stored is not None
        item = nest.stripe.object("subscription", each["id"])["items"]["data"][0]
        assert stored["endsAt"].timestamp() == item["current_period_end"]


@pytest.mark.parametrize("customers", [12, pytest.param(200, marks=pytest.mark.slow)])
async def test_import_of_an_account_sends_no_mail_and_repeats_nothing(
    customers: int, run_nest: RunNest, mongo_client: Mongo
) -> None:
    begin = datetime.now(UTC) - timedelta(days=IMPORTED_DAYS, minutes=5)
    async with StripeDouble(api_key=KEY, start=begin) as stripe:
        price = await demo.trial_price(KEY, stripe.url)
        await RandomWorkload(stripe, price, seed=3).run(customers=customers, days=IMPORTED_DAYS)
        settings = {
            "NEST_STRIPE_API_BASE": stripe.url,
            "NEST_STRIPE_API_KEY": KEY,
            "NEST_STRIPE_TRIAL_PRICE": price,
        }
        async with run_nest(settings=settings) as nest:
            billing = Billing(nest, mongo_client)
            first = await import_account(nest)
            assert (first["status"], first["differences"]) == ("done", 0), first
            existing = [each for each in stripe.objects("customer") if not each.get("deleted")]
            assert first["counts"]["asked"] == len(existing)
            await billing.has("payments", len(stripe.objects("payment_intent")))
            await billing.has("disputes", len(stripe.objects("dispute")))
            assert nest.inbox.arrivals() == []
            before = billing.books()

            second = await import_account(nest)

            assert (second["counts"]["asked"], second["counts"]["attached"], second["differences"]) == (0, 0, 0)
            assert billing.books() == before
            assert nest.inbox.arrivals() == []


async def import_account(nest: Stack) -> dict[str, Any]:
    """Import the account, wait for the end by the API, and return what the command prints."""
    run_id = (await nest.command("stripe", "import", "--yes", "--no-wait")).out.strip()

    async def over() -> bool:
        response = await nest.call("get_stripe_run", {"run_id": run_id}, **nest.internal)
        return bool(response.json()["status"] not in ("running", "waiting"))

    await eventually(over, within=300, what="the import")
    completed = await nest.command("stripe", "import", "--run", run_id, "--json")
    assert completed.code == 0, completed
    return parsed(completed)
