"""Whatever our records lack of Stripe's truth is found, mended the way a webhook mends it, and found no more."""

from typing import Any

import pytest

from shared.messages.stripe_runs import (
    ReconcileSubscriptions,
)
from tests.billing.conftest import Shop, post
from tests.billing.runs import differences, finish

VERIFY = ReconcileSubscriptions(repair=False)


async def lived(shop: Shop) -> dict[str, Any]:
    """Somebody who had a trial, bought, was declined, disputed: all of it recorded as Stripe has it."""
    made = shop.double.play.checkout(shop.price, email="ada@example.com")
    shop.double.play.dispute(made["id"])
    shop.double.play.checkout(shop.price, email="bob@example.com", trial_days=14)
    await shop.deliver_all()
    return made


async def test_equal_records_are_no_drift(shop: Shop) -> None:
    await lived(shop)
    done = await finish(shop, VERIFY)
    assert (done["status"], done["differences"]) == ("done", 0)
    looked_at = {name: done["counts"][name] for name in ("customers", "subscriptions", "payments", "disputes")}
    assert looked_at == {"customers": 2, "subscriptions": 2, "payments": 1, "disputes": 1}
    assert await differences(shop, done) == []


BREAKS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "customer of another user": ("provider_mappings", {"userId": "user_other"}),
    "subscription differs": ("subscriptions", {"status": "past_due", "cancelType": "immediate"}),
    "subscription missing here": ("subscriptions", None),
    "payment differs": ("payments", {"amountReceived": 1}),
    "payment missing here": ("payments", None),
    "dispute differs": ("disputes", {"status": "won"}),
    "dispute missing here": ("disputes", None),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_drift_is_found_repaired_and_found_no_more(shop: Shop, name: str) -> None:
    collection, change = BREAKS[name]
    made = await lived(shop)
    await post(shop.double, f"/v1/customers/{made['customer']}", **{"metadata[user_id]": "user_1"})
    field = "providerValue" if collection == "provider_mappings" else "stpCustomerId"
    before = await shop.desk.database[collection].find_one({field: made["customer"]})
    assert before is not None
    if change is None:
        await shop.desk.database[collection].delete_one({"_id": before["_id"]})
    else:
        await shop.desk.database[collection].update_one(
            {"_id": before["_id"]}, {"$set": change, "$inc": {"version": 1}}
        )

    seen = await finish(shop, VERIFY)
    assert seen["differences"] >= 1
    subject, _, _ = name.partition(" ")
    [found] = [each for each in await differences(shop, seen) if each["object"] == subject]
    assert (found["state"], found["kind"]) == ("found", "missing_here" if change is None else "differs")
    assert await shop.count("stripe_drift") >= 1

    repaired = await finish(shop, ReconcileSubscriptions())
    assert repaired["differences"] == 0, await differences(shop, repaired)
    assert repaired["counts"]["repaired"] >= 1
    assert await shop.count("stripe_drift") == 0
    assert (await finish(shop, VERIFY))["differences"] == 0
