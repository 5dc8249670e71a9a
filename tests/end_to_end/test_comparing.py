"""`nest stripe …` as an operator types it, against a running Nest whose Stripe plays along, or doesn't."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection

from services.embedded import demo
from services.stripe_double import DeliveryFaults, StripeDouble
from tests.end_to_end.test_operator import Done, run
from tests.stack import Stack, eventually, running_stack
from tests.stripe_double.random_workload import RandomWorkload

LIFE_DAYS = 60
KEY = "sk_test_account_of_old"


def said(done: Done) -> dict[str, Any]:
    """What a script reads."""
    answer: dict[str, Any] = json.loads(done.out)
    return answer


class Books:
    """What billing has in MongoDB."""

    def __init__(self, client: MongoClient[dict[str, Any]]) -> None:
        self._client = client

    def of(self, nest: Stack, collection: str) -> Collection[dict[str, Any]]:
        """A collection of a Nest's."""
        return self._client[f"{nest.environment['NEST_DATABASE_PREFIX']}billing"][collection]

    async def hold(self, nest: Stack, collection: str, count: int) -> None:
        """Wait until it has so many documents."""
        await eventually(lambda: self.of(nest, collection).count_documents({}) == count, what=f"{count} {collection}")

    def everything(self, nest: Stack) -> dict[str, list[dict[str, Any]]]:
        """All that is held of people."""
        names = ("provider_mappings", "subscriptions", "payments", "disputes", "trials", "stripe_drift")
        return {name: list(self.of(nest, name).find().sort("_id")) for name in names}


@pytest.fixture
def books(mongo_client: MongoClient[dict[str, Any]]) -> Books:
    """What billing has in MongoDB."""
    return Books(mongo_client)


@pytest.fixture
async def quiet_nest(
    tmp_path: Any, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str]
) -> AsyncIterator[Stack]:
    """A Nest of this test's own."""
    prefix = unique()
    async with running_stack(
        tmp_path,
        kafka_bootstrap=kafka_bootstrap,
        mongo_url=mongo_url,
        topic_prefix=f"{prefix}.",
        database_prefix=prefix,
    ) as stack:
        yield stack


async def test_three_days_of_lost_webhooks_are_seen_swept_up_and_gone(quiet_nest: Stack, books: Books) -> None:
    nest, price = quiet_nest, quiet_nest.environment["NEST_STRIPE_TRIAL_PRICE"]
    nest.stripe.simulate.checkout(price, email="ada@example.com")
    await nest.stripe.webhooks.drain(30)
    await books.hold(nest, "subscriptions", 1)

    nest.stripe.webhooks.faults = DeliveryFaults(loss_rate=1.0)
    for day in range(3):
        made = nest.stripe.simulate.checkout(price, email=f"day{day}@example.com")
        nest.stripe.simulate.dispute(made["id"])
        await nest.stripe.clock.advance(timedelta(days=1))
    nest.stripe.webhooks.faults = DeliveryFaults()

    seen = await run(nest, "stripe", "verify", "--json")
    assert seen.code == 1, seen.err
    kinds = {(each["object"], each["kind"]) for each in said(seen)["found"]}
    assert kinds == {(subject, "missing_here") for subject in ("subscription", "payment", "dispute")}

    swept = await run(nest, "stripe", "sweep")
    assert swept.code == 0, swept.err
    assert "handed over" in swept.out
    await books.hold(nest, "subscriptions", 4)
    await books.hold(nest, "disputes", 3)
    for day in range(3):
        await nest.mail(f"day{day}@example.com", subject="welcome")

    again = await run(nest, "stripe", "sweep", "--json")
    assert said(again)["counts"]["handed_over"] == 0
    clean = await run(nest, "stripe", "verify")
    assert clean.code == 0, clean
    for day in range(3):
        assert len(nest.inbox.arrivals(f"day{day}@example.com")) == 1


async def stands_still(nest: Stack, books: Books) -> bool:
    """Whether nobody writes to the subscription: a reading under way would mend what the test is about to spoil."""
    before = books.of(nest, "subscriptions").find_one({}, {"version": 1})
    await asyncio.sleep(2)
    return before is not None and before == books.of(nest, "subscriptions").find_one({}, {"version": 1})


async def test_drift_is_a_table_and_reconcile_mends_it(quiet_nest: Stack, books: Books) -> None:
    nest = quiet_nest
    made = nest.stripe.simulate.checkout(nest.environment["NEST_STRIPE_TRIAL_PRICE"], email="ada@example.com")
    await nest.stripe.webhooks.drain(30)
    await books.hold(nest, "stripe_events", len(nest.stripe.objects("event")))
    waiting = {"handledAt": None}
    await eventually(lambda: not books.of(nest, "stripe_events").count_documents(waiting), what="the last event")
    await eventually(lambda: stands_still(nest, books), what="the last reading of the subscription")
    books.of(nest, "subscriptions").update_one({}, {"$set": {"status": "past_due"}, "$inc": {"version": 1}})

    seen = await run(nest, "stripe", "verify")
    assert seen.code == 1
    title, line = seen.out.splitlines()
    assert title.split("\t")[:2] == ["OBJECT", "STRIPE ID"]
    assert line.split("\t")[1] == made["id"]
    assert line.endswith("status: past_due -> active")

    mended = await run(nest, "stripe", "reconcile", "--json")
    assert (mended.code, said(mended)["counts"]["repaired"]) == (0, 1), mended
    assert (await run(nest, "stripe", "verify")).code == 0
    runs = await run(nest, "stripe", "runs", "--json")
    assert [each["kind"] for each in said(runs)["runs"]] == ["verify", "reconcile", "verify"]


async def test_a_run_is_started_stopped_and_gone_on_with(quiet_nest: Stack) -> None:
    nest = quiet_nest
    started = await run(nest, "stripe", "replay", "--since", "2026-01-01", "--no-wait")
    run_id = started.out.strip()
    stopped = await run(nest, "stripe", "stop", run_id)
    assert stopped.out.split()[0] == run_id
    done = await run(nest, "stripe", "replay", "--run", run_id, "--json")
    assert (done.code, said(done)["status"]) == (0, "done")
    unknown = await run(nest, "stripe", "verify", "--run", "striperun_none")
    assert (unknown.code, "not_found" in unknown.err) == (1, True)


@pytest.mark.parametrize("customers", [12, pytest.param(200, marks=pytest.mark.slow)])
async def test_an_account_is_taken_over_in_silence_and_twice_is_once(
    *, customers: int, tmp_path: Any, kafka_bootstrap: str, mongo_url: str, unique: Callable[[], str], books: Books
) -> None:
    prefix = unique()
    begin = datetime.now(UTC) - timedelta(days=LIFE_DAYS, minutes=5)
    async with StripeDouble(api_key=KEY, start=begin) as old:
        price = await demo.trial_price(KEY, old.url)
        await RandomWorkload(old, price, seed=3).run(customers=customers, days=LIFE_DAYS)
        told = {"NEST_STRIPE_API_BASE": old.url, "NEST_STRIPE_API_KEY": KEY, "NEST_STRIPE_TRIAL_PRICE": price}
        async with running_stack(
            tmp_path,
            kafka_bootstrap=kafka_bootstrap,
            mongo_url=mongo_url,
            topic_prefix=f"{prefix}.",
            database_prefix=prefix,
            settings=told,
        ) as nest:
            answer = await imported(nest)
            assert (answer["status"], answer["differences"]) == ("done", 0), answer
            alive = [each for each in old.objects("customer") if not each.get("deleted")]
            assert answer["counts"]["asked"] == len(alive)
            await books.hold(nest, "payments", len(old.objects("payment_intent")))
            await books.hold(nest, "disputes", len(old.objects("dispute")))
            assert nest.inbox.arrivals() == []
            before = books.everything(nest)

            again = await imported(nest)

            assert (again["counts"]["asked"], again["counts"]["attached"], again["differences"]) == (0, 0, 0)
            assert books.everything(nest) == before
            assert nest.inbox.arrivals() == []


async def imported(nest: Stack) -> dict[str, Any]:
    """Take the account over, watching by the API for as long as it takes; what the command says in the end."""
    run_id = (await run(nest, "stripe", "import", "--yes", "--no-wait")).out.strip()

    async def over() -> bool:
        answer = await nest.call("get_stripe_run", {"run_id": run_id}, **nest.internal)
        return bool(answer.json()["status"] not in ("running", "waiting"))

    await eventually(over, within=300, what="the import")
    done = await run(nest, "stripe", "import", "--run", run_id, "--json")
    assert done.code == 0, done
    return said(done)
