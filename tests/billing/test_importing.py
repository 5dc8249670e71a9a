"""An account that lived before Nest is taken over whole, nobody hears of it, and a second time changes nothing."""

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
from tests.billing.runs import differences, finish
from tests.stripe_double.random_workload import RandomWorkload

LOUD: tuple[type[Message], ...] = (SendMail, CancelDuplicateSubscription, RefundDuplicateSubscription)
RECORDS = ("provider_mappings", "subscriptions", "payments", "disputes", "trials")


async def records(shop: Shop) -> dict[str, list[dict[str, Any]]]:
    """Everything that billing holds of its people."""
    return {name: await shop.harness.database[name].find().sort("_id").to_list() for name in RECORDS}


def same_time(shop: Shop) -> None:
    """Let billing's clock show what Stripe's does, which a test moves on."""
    shop.harness.now = max(shop.harness.now, datetime.fromtimestamp(shop.double.clock.now(), UTC))


async def take_over(shop: Shop) -> dict[str, Any]:
    """Import the account."""
    same_time(shop)
    return await finish(shop, ImportStripeAccount())


def said_aloud(shop: Shop) -> list[Message]:
    return [message for message in shop.harness.published if isinstance(message, LOUD)]


@pytest.mark.parametrize(("customers", "days"), [(12, 60), pytest.param(200, 60, marks=pytest.mark.slow)])
async def test_a_life_of_many_is_taken_over_once(customers: int, days: int, shop: Shop) -> None:
    await RandomWorkload(shop.double, shop.price, seed=7).run(customers=customers, days=days)
    alive = [each for each in shop.double.objects("customer") if not each.get("deleted")]

    done = await take_over(shop)

    found = await differences(shop, done)
    assert (done["status"], done["differences"]) == ("done", 0), found
    assert done["counts"]["account_customers"] == done["counts"]["asked"] == len(alive)
    assert await shop.count("provider_mappings") == len(alive)
    assert await shop.count("payments") == len(shop.double.objects("payment_intent"))
    assert await shop.count("disputes") == len(shop.double.objects("dispute"))
    assert said_aloud(shop) == []
    before = await records(shop)

    again = await take_over(shop)

    assert (again["differences"], again["counts"]["attached"], again["counts"]["asked"]) == (0, 0, 0)
    assert await records(shop) == before
    assert (await finish(shop, ReconcileSubscriptions(repair=False)))["differences"] == 0


async def test_customers_are_attached_by_metadata_or_address_and_reported_without_either(shop: Shop) -> None:
    named = await post(shop.double, "/v1/customers", **{"metadata[user_id]": "user_known"})
    addressed = await post(shop.double, "/v1/customers", email="ada@example.com")
    stranger = await post(shop.double, "/v1/customers")
    deleted = await post(shop.double, "/v1/customers", email="gone@example.com")
    shop.double.simulate.delete_customer(deleted["id"])

    done = await take_over(shop)

    rows = await shop.harness.database["provider_mappings"].find().to_list()
    users = {row["providerValue"]: row["userId"] for row in rows}
    assert users == {named["id"]: "user_known", addressed["id"]: shop.users["ada@example.com"]}
    assert [(each["kind"], each["stripe_id"]) for each in await differences(shop, done)] == [("nobody", stranger["id"])]
    assert {name: done["counts"][name] for name in ("attached", "asked", "nobody")} == {
        "attached": 1,
        "asked": 1,
        "nobody": 1,
    }


@pytest.mark.parametrize("later", ["a webhook", "a comparison"])
async def test_a_duplicate_that_was_taken_over_is_reported_and_never_cancelled(shop: Shop, later: str) -> None:
    kept = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.a_second_later()
    newcomer = shop.double.simulate.checkout(shop.price, customer=kept["customer"])

    done = await take_over(shop)

    [found] = await differences(shop, done)
    assert (found["kind"], found["stripe_id"]) == ("duplicate", newcomer["id"])
    assert len(shop.harness.published_of(DuplicateSubscriptionFound)) == 1
    if later == "a webhook":
        shop.double.simulate.pause_collection(newcomer["id"])
        await shop.deliver(shop.events_of(newcomer["id"])[-1])
    else:
        await finish(shop, ReconcileSubscriptions())
    assert said_aloud(shop) == []
    assert shop.double.object("subscription", newcomer["id"])["status"] == "active"


async def test_who_subscribes_after_the_takeover_is_welcomed(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await take_over(shop)
    same_time(shop)
    await shop.double.clock.advance(timedelta(minutes=1))
    await shop.a_second_later()
    shop.double.simulate.checkout(shop.price, email="bob@example.com")
    await shop.deliver_all()
    assert shop.mails() == [("welcome", "bob@example.com")]


async def test_a_webhook_of_old_that_comes_first_welcomes_nobody_either(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    shop.double.simulate.dispute(made["id"])
    await shop.a_second_later()
    same_time(shop)
    await shop.harness.deliver(ImportStripeAccount())
    for event in shop.double.objects("event"):
        await shop.deliver(event)
    await shop.settle()
    assert said_aloud(shop) == []
