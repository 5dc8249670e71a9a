"""Import of an account that existed before Nest."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.messages import Message
from shared.messages.billing.runs import ImportStripeAccount, ReconcileSubscriptions
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    DuplicateSubscriptionFound,
    RefundDuplicateSubscription,
)
from shared.messages.mailer.mails import SendMail
from tests.billing.conftest import Shop, post
from tests.billing.stripe_runs import differences, finish
from tests.stripe_double.random_workload import RandomWorkload

VISIBLE: tuple[type[Message], ...] = (SendMail, CancelDuplicateSubscription, RefundDuplicateSubscription)
RECORDS = ("provider_mappings", "subscriptions", "payments", "disputes", "trials")


async def records(shop: Shop) -> dict[str, list[dict[str, Any]]]:
    """All documents about users."""
    return {name: await shop.harness.database[name].find().sort("_id").to_list() for name in RECORDS}


def synchronize_clocks(shop: Shop) -> None:
    """Set the clock of billing to Stripe's, which tests advance."""
    shop.harness.now = max(shop.harness.now, datetime.fromtimestamp(shop.double.clock.now(), UTC))


async def import_account(shop: Shop) -> dict[str, Any]:
    """Import the account and return the finished run."""
    synchronize_clocks(shop)
    return await finish(shop, ImportStripeAccount())


def visible_effects(shop: Shop) -> list[Message]:
    return [message for message in shop.harness.published if isinstance(message, VISIBLE)]


@pytest.mark.parametrize(("customers", "days"), [(12, 60), pytest.param(200, 60, marks=pytest.mark.slow)])
async def test_a_large_account_is_imported_once(customers: int, days: int, shop: Shop) -> None:
    await RandomWorkload(shop.double, shop.price, seed=7).run(customers=customers, days=days)
    existing = [each for each in shop.double.objects("customer") if not each.get("deleted")]

    done = await import_account(shop)

    found = await differences(shop, done)
    assert (done["status"], done["differences"]) == ("done", 0), found
    assert done["counts"]["account_customers"] == done["counts"]["asked"] == len(existing)
    assert await shop.count("provider_mappings") == len(existing)
    assert await shop.count("payments") == len(shop.double.objects("payment_intent"))
    assert await shop.count("disputes") == len(shop.double.objects("dispute"))
    assert visible_effects(shop) == []
    before = await records(shop)

    second = await import_account(shop)

    assert (second["differences"], second["counts"]["attached"], second["counts"]["asked"]) == (0, 0, 0)
    assert await records(shop) == before
    assert (await finish(shop, ReconcileSubscriptions(repair=False)))["differences"] == 0


async def test_customers_are_mapped_by_metadata_or_address_or_reported(shop: Shop) -> None:
    with_user = await post(shop.double, "/v1/customers", **{"metadata[user_id]": "user_known"})
    with_address = await post(shop.double, "/v1/customers", email="ada@example.com")
    without_either = await post(shop.double, "/v1/customers")
    deleted = await post(shop.double, "/v1/customers", email="gone@example.com")
    shop.double.simulate.delete_customer(deleted["id"])

    done = await import_account(shop)

    rows = await shop.harness.database["provider_mappings"].find().to_list()
    users = {row["providerValue"]: row["userId"] for row in rows}
    assert users == {with_user["id"]: "user_known", with_address["id"]: shop.users["ada@example.com"]}
    assert [(each["kind"], each["stripe_id"]) for each in await differences(shop, done)] == [
        ("nobody", without_either["id"])
    ]
    assert {name: done["counts"][name] for name in ("attached", "asked", "nobody")} == {
        "attached": 1,
        "asked": 1,
        "nobody": 1,
    }


@pytest.mark.parametrize("later", ["a webhook", "a comparison"])
async def test_a_duplicate_that_was_taken_over_is_reported_and_kept(shop: Shop, later: str) -> None:
    kept = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.next_second()
    duplicate = shop.double.simulate.checkout(shop.price, customer=kept["customer"])

    done = await import_account(shop)

    [found] = await differences(shop, done)
    assert (found["kind"], found["stripe_id"]) == ("duplicate", duplicate["id"])
    assert len(shop.harness.published_of(DuplicateSubscriptionFound)) == 1
    if later == "a webhook":
        shop.double.simulate.pause_collection(duplicate["id"])
        await shop.deliver(shop.events_of(duplicate["id"])[-1])
    else:
        await finish(shop, ReconcileSubscriptions())
    assert visible_effects(shop) == []
    assert shop.double.object("subscription", duplicate["id"])["status"] == "active"


async def test_a_subscription_after_the_import_is_welcomed(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await import_account(shop)
    synchronize_clocks(shop)
    await shop.double.clock.advance(timedelta(minutes=1))
    await shop.next_second()
    shop.double.simulate.checkout(shop.price, email="bob@example.com")
    await shop.deliver_all()
    assert shop.mails() == [("welcome", "bob@example.com")]


async def test_a_webhook_before_the_imports_reading_causes_no_mail(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    shop.double.simulate.dispute(made["id"])
    await shop.next_second()
    synchronize_clocks(shop)
    await shop.harness.deliver(ImportStripeAccount())
    for event in shop.double.objects("event"):
        await shop.deliver(event)
    await shop.settle()
    assert visible_effects(shop) == []
