"""Comparison of all records with Stripe, and their repair."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.billing import metrics
from services.billing.runs import recheck, verification
from services.billing.stripe_api import lists
from services.billing.stripe_api.calls import Timeouts
from shared.ids import derived_message_id
from shared.messages.billing.runs import (
    GetStripeRunProgress,
    ListStripeRuns,
    ReconcileSubscriptions,
    ResumeStripeRun,
    StopStripeRun,
)
from shared.messages.billing.subscriptions import FollowSubscription
from shared.messages.billing.trials import StartTrial
from tests.billing.conftest import Shop, post
from tests.billing.stripe_runs import differences, finish, run, settle, steps
from tests.service_harness import Refused

VERIFY = ReconcileSubscriptions(repair=False)


def start_trial(name: str) -> StartTrial:
    """The command that starts a person's trial."""
    return StartTrial(
        user_id=f"user_{name}",
        email=f"{name}@example.com",
        client_id="client_1",
        redirect_uri="https://example.com",
        state="s",
        code_challenge="a" * 64,
        fingerprint=name,
    )


async def recorded_account(shop: Shop) -> dict[str, Any]:
    """A paid and disputed subscription and a trial, recorded as Stripe has them; returns the former."""
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    shop.double.simulate.dispute(made["id"])
    shop.double.simulate.checkout(shop.price, email="bob@example.com", trial_days=14)
    await shop.deliver_all()
    return made


async def test_equal_records_have_no_drift(shop: Shop) -> None:
    await recorded_account(shop)
    done = await finish(shop, VERIFY)
    assert (done["status"], done["differences"]) == ("done", 0)
    compared = {name: done["counts"][name] for name in ("customers", "subscriptions", "payments", "disputes")}
    assert compared == {"customers": 2, "subscriptions": 2, "payments": 1, "disputes": 1}
    assert await differences(shop, done) == []


CHANGES: dict[str, tuple[str, dict[str, Any] | None]] = {
    "customer missing here": ("provider_mappings", None),
    "customer differs": ("provider_mappings", {"userId": "user_other"}),
    "subscription differs": ("subscriptions", {"status": "past_due", "cancelType": "immediate"}),
    "subscription missing here": ("subscriptions", None),
    "payment differs": ("payments", {"amountReceived": 1}),
    "payment missing here": ("payments", None),
    "dispute differs": ("disputes", {"status": "won"}),
    "dispute missing here": ("disputes", None),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_drift_is_found_and_repaired(shop: Shop, name: str) -> None:
    collection, change = CHANGES[name]
    made = await recorded_account(shop)
    await post(shop.double, f"/v1/customers/{made['customer']}", **{"metadata[user_id]": "user_1"})
    field = "providerValue" if collection == "provider_mappings" else "stpCustomerId"
    before = await shop.harness.database[collection].find_one({field: made["customer"]})
    assert before is not None
    if change is None:
        await shop.harness.database[collection].delete_one({"_id": before["_id"]})
    else:
        await shop.harness.database[collection].update_one(
            {"_id": before["_id"]}, {"$set": change, "$inc": {"version": 1}}
        )

    verified = await finish(shop, VERIFY)
    assert verified["differences"] >= 1
    subject, _, _ = name.partition(" ")
    [found] = [each for each in await differences(shop, verified) if each["object"] == subject]
    assert (found["state"], found["kind"]) == ("found", "missing_here" if change is None else "differs")
    assert await shop.count("stripe_drift") >= 1

    repaired = await finish(shop, ReconcileSubscriptions())
    assert repaired["differences"] == 0, await differences(shop, repaired)
    assert repaired["counts"]["repaired"] >= 1
    assert await shop.count("stripe_drift") == 0
    assert (await finish(shop, VERIFY))["differences"] == 0


async def test_deleted_mappings_are_found_and_repaired(shop: Shop) -> None:
    """Without metadata in Stripe: the users are those of the subscriptions, the payments, and the trial."""
    await recorded_account(shop)
    await shop.harness.deliver(start_trial("eve"))
    await shop.settle()
    mappings = shop.harness.database["provider_mappings"]
    users = {each["providerValue"]: each["userId"] async for each in mappings.find()}
    assert len(users) == 3
    await mappings.delete_many({})

    verified = await finish(shop, VERIFY)
    found = {each["stripe_id"]: each["kind"] for each in await differences(shop, verified)}
    assert found == dict.fromkeys(users, "missing_here")

    repaired = await finish(shop, ReconcileSubscriptions())
    assert (repaired["differences"], repaired["counts"]["repaired"]) == (0, 3)
    assert {each["providerValue"]: each["userId"] async for each in mappings.find()} == users


async def test_no_object_of_a_list_costs_a_call_of_its_own(shop: Shop) -> None:
    for number in range(12):
        shop.double.simulate.checkout(shop.price, email=f"{number}@example.com", metadata={"user_id": f"u{number}"})
    await shop.harness.deliver(start_trial("eve"))
    await shop.settle()
    await shop.deliver_all()
    before = len(shop.double.log)
    done = await finish(shop, VERIFY)
    assert (done["differences"], done["counts"]["payments"], done["counts"]["trials"]) == (0, 12, 1)
    # Stripe has no list of the features of several products, of which an account has few.
    assert sorted(call.path for call in shop.double.log[before:] if not call.path.endswith("/features")) == [
        "/v1/customers",
        "/v1/disputes",
        "/v1/invoice_payments",
        "/v1/payment_intents",
        "/v1/prices",
        "/v1/products",
        "/v1/subscriptions",
    ]


async def test_a_run_of_an_earlier_release_begins_again(shop: Shop) -> None:
    await recorded_account(shop)
    begun = await shop.harness.deliver(VERIFY)
    former = {"$unset": {"stages": "", "totals": "", "read": "", "countedAt": ""}, "$set": {"place": 3, "cursor": "x"}}
    await shop.harness.database["stripe_runs"].update_one({"_id": begun["id"]}, former)
    await settle(shop, begun["id"])
    done = await run(shop, begun["id"])
    assert (done["status"], done["differences"], done["counts"]["payments"]) == ("done", 0, 1)


async def test_the_progress_of_a_run_ends_at_its_total(shop: Shop) -> None:
    await recorded_account(shop)
    begun = await shop.harness.deliver(VERIFY)
    query = GetStripeRunProgress(run_id=begun["id"])
    first = await shop.harness.deliver(query)
    assert (first["objects_read"], first["objects_total"], first["seconds_left"]) == (0, None, None)
    await settle(shop, begun["id"])
    last = await shop.harness.deliver(query)
    assert (last["objects_read"], last["objects_total"], last["seconds_left"]) == (7, 7, None)


async def test_a_record_that_stripe_lacks_is_reported_and_not_deleted(shop: Shop) -> None:
    made = await recorded_account(shop)
    database = shop.harness.database
    for collection, field in (("subscriptions", "stpSubscriptionId"), ("payments", "stpPaymentIntentId")):
        document = await database[collection].find_one({"stpCustomerId": made["customer"]})
        assert document is not None
        await database[collection].insert_one({**document, "_id": f"{collection}_x", field: f"{collection}_none"})
    before = await shop.count("subscriptions"), await shop.count("payments")

    done = await finish(shop, ReconcileSubscriptions())

    found = {(each["object"], each["kind"], each["state"], each["id"]) for each in await differences(shop, done)}
    assert found == {
        ("subscription", "missing_there", "found", "subscriptions_x"),
        ("payment", "missing_there", "found", "payments_x"),
    }
    assert done["differences"] == 2
    assert (await shop.count("subscriptions"), await shop.count("payments")) == before


async def test_a_trial_that_was_extended_in_stripe_is_repaired(shop: Shop) -> None:
    shop.double.clock.freeze()
    await shop.read_catalog()
    await shop.harness.deliver(start_trial("bob"))
    await shop.settle()
    [trial] = await shop.harness.database["trials"].find().to_list()
    end = int(trial["endsAt"].timestamp()) + 86_400
    await post(shop.double, f"/v1/subscriptions/{trial['stpSubscriptionId']}", trial_end=str(end))

    verified = await finish(shop, VERIFY)
    found = {each["object"]: [field["field"] for field in each["fields"]] for each in await differences(shop, verified)}
    assert found == {"subscription": ["ends_at"], "trial": ["ends_at"]}

    assert (await finish(shop, ReconcileSubscriptions()))["differences"] == 0
    [trial] = await shop.harness.database["trials"].find().to_list()
    assert trial["endsAt"].timestamp() == end


async def test_a_change_during_the_comparison_is_checked_again(shop: Shop) -> None:
    made = await recorded_account(shop)
    shop.double.simulate.cancel(made["id"])
    begun = await shop.harness.deliver(VERIFY)
    await shop.settle()
    assert [each["state"] for each in await differences(shop, begun)] == ["suspected"]
    # Its webhook arrives now.
    for event in shop.events_of(made["id"]):
        await shop.deliver(event)
    await settle(shop, begun["id"])
    assert (await run(shop, begun["id"]))["differences"] == 0
    assert await differences(shop, begun) == []


async def test_a_run_over_recent_events_also_checks_known_drift(shop: Shop) -> None:
    made = await recorded_account(shop)
    await shop.harness.database["payments"].update_one({}, {"$set": {"amount": 1}, "$inc": {"version": 1}})
    done = await finish(shop, ReconcileSubscriptions(repair=False, changed_within_hours=1))
    assert (done["kind"], done["differences"]) == ("verify_lately", 1)
    await shop.double.clock.advance(timedelta(hours=6))
    shop.harness.now += timedelta(hours=6)
    # Known drift is checked whatever the scope of the run.
    done = await finish(shop, ReconcileSubscriptions(repair=False, changed_within_hours=1))
    assert (done["counts"]["objects"], done["differences"]) == (0, 1)
    await shop.harness.deliver(FollowSubscription(key=made["id"], subscription_id=made["id"]))
    await finish(shop, ReconcileSubscriptions(changed_within_hours=1))
    assert await shop.count("stripe_drift") == 0


async def test_all_pages_of_the_lists_are_compared(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (path, params) in lists.LISTS.items():
        monkeypatch.setitem(lists.LISTS, name, (path, {**params, "limit": 4}))
    monkeypatch.setattr(verification, "MAPPINGS_PER_STEP", 4)
    monkeypatch.setattr(recheck, "PER_STEP", 4)
    for number in range(10):
        shop.double.simulate.checkout(shop.price, email=f"{number}@example.com")
    done = await finish(shop, ReconcileSubscriptions())
    assert (done["differences"], done["counts"]["subscriptions"], done["counts"]["payments"]) == (0, 10, 10)
    # The product and its price too.
    assert done["counts"]["repaired"] == 22
    done = await finish(shop, VERIFY)
    counts = {name: done["counts"][name] for name in ("customers", "subscriptions", "payments")}
    assert counts == {"customers": 10, "subscriptions": 10, "payments": 10}


async def test_after_a_crash_between_steps_no_step_is_done_twice(shop: Shop, open_shop: Callable[..., Any]) -> None:
    await recorded_account(shop)
    begun = await shop.harness.deliver(VERIFY)
    [first] = steps(shop)
    message_id = derived_message_id("stripe-run", begun["id"], "0", "0")
    await shop.harness.deliver(first, id=message_id)
    # The step was committed but its offset was not: another instance gets the message and publishes the same again.
    other = await open_shop()
    await other.harness.deliver(first, id=message_id)
    assert steps(other) == steps(shop)[1:]
    # A repeat under another message ID finds that the step is done.
    published = len(shop.harness.published)
    await shop.harness.deliver(first)
    assert len(shop.harness.published) == published
    await settle(other, begun["id"])
    done = await run(other, begun["id"])
    assert (done["status"], done["counts"]["subscriptions"]) == ("done", 2)


async def test_a_run_stops_and_resumes_where_it_was(shop: Shop) -> None:
    await recorded_account(shop)
    begun = await shop.harness.deliver(VERIFY)
    await shop.harness.deliver(steps(shop)[-1])
    stopped = await shop.harness.deliver(StopStripeRun(run_id=begun["id"]))
    assert stopped["status"] == "stopped"
    await shop.settle()
    assert (await run(shop, begun["id"]))["stage"] == stopped["stage"]
    resumed = await shop.harness.deliver(ResumeStripeRun(run_id=begun["id"]))
    assert resumed["status"] == "running"
    await settle(shop, begun["id"])
    assert (await run(shop, begun["id"]))["counts"]["subscriptions"] == 2
    assert (await shop.harness.deliver(StopStripeRun(run_id=begun["id"])))["status"] == "done"


async def test_one_run_of_a_kind_is_under_way_at_a_time(shop: Shop) -> None:
    begun = await shop.harness.deliver(VERIFY)
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(VERIFY)
    assert (refused.value.code, refused.value.meta) == ("stripe_run_under_way", {"run_id": begun["id"]})
    # A stalled run is replaced.
    shop.harness.now += timedelta(hours=2)
    again = await shop.harness.deliver(VERIFY)
    assert (await run(shop, begun["id"]))["status"] == "given_up"
    await settle(shop, again["id"])
    listed = await shop.harness.deliver(ListStripeRuns())
    assert sorted(each["status"] for each in listed["runs"]) == ["done", "given_up"]


async def test_a_run_waits_during_an_outage_of_stripe(shop: Shop) -> None:
    await recorded_account(shop)
    shop.harness.context.stripe.calls.timeouts = Timeouts(attempt=0.5, call=0.5, retry_pause=0.01)
    begun = await shop.harness.deliver(VERIFY)
    async with shop.double.outage():
        await shop.settle()
        assert (await run(shop, begun["id"]))["status"] == "waiting"
    await settle(shop, begun["id"])
    assert (await run(shop, begun["id"]))["status"] == "done"


async def test_gauges_report_known_drift_and_finished_runs(shop: Shop) -> None:
    context = shop.harness.context
    await recorded_account(shop)
    await shop.harness.database["payments"].update_one({}, {"$set": {"amount": 1}, "$inc": {"version": 1}})
    await finish(shop, VERIFY)
    await metrics.update_gauges(context.runs, context.known_drift, context.events)
    assert metrics.DRIFT.labels("payment", "differs")._value.get() == 1
    assert metrics.DRIFT_SINCE._value.get() > 0
    assert metrics.RUN_FINISHED.labels("verify")._value.get() > 0
    await finish(shop, ReconcileSubscriptions())
    await metrics.update_gauges(context.runs, context.known_drift, context.events)
    assert metrics.DRIFT_SINCE._value.get() == 0
    assert [sample for metric in metrics.DRIFT.collect() for sample in metric.samples] == []
