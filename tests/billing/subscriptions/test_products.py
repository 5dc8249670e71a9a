"""Other products of the account (NEST_STRIPE_PRODUCTS) and connected accounts: acknowledged, counted, left alone."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.messages.auth.users import EnsureUser
from shared.messages.billing.runs import ImportStripeAccount, ReconcileSubscriptions
from shared.messages.billing.subscriptions import (
    CancelDuplicateSubscription,
    DuplicateSubscriptionFound,
    GetSubscription,
    GetSubscriptionHeartbeat,
    SubscriptionChanged,
)
from shared.messages.mailer.mails import SendMail
from tests.billing.conftest import ADA, MONTH, Shop, counter
from tests.billing.stripe_runs import differences, finish
from tests.service_harness import Refused
from tests.stripe_double.random_workload import RandomWorkload

OpenShop = Callable[..., Any]
CALLED = ("subscriptions", "payments", "disputes", "provider_mappings", "payers")
"""Collections that other products leave empty."""


async def other_price(shop: Shop, **form: str) -> str:
    """The ID of a monthly price of another product."""
    recurring = {"recurring[interval]": "month", "product_data[name]": "Mug"}
    return str((await shop.post("/v1/prices", currency="usd", unit_amount="900", **recurring, **form))["id"])


@pytest.fixture
async def selling(open_shop: OpenShop, shop: Shop) -> Shop:
    """A shop in an account that sells another product too."""
    product = (shop.double.object("price", shop.price))["product"]
    opened: Shop = await open_shop(stripe_products=f"prod_x, {product}")
    return opened


async def outcomes(shop: Shop) -> dict[str, set[str]]:
    """The outcomes of the events, by type; those of types without a handler are left out."""
    found: dict[str, set[str]] = {}
    for row in await shop.event_rows():
        if row["outcome"] != "not_followed":
            found.setdefault(row["type"], set()).add(row["outcome"])
    return found


async def test_another_product_is_left_alone_in_all_its_events(selling: Shop) -> None:
    before = counter("nest_stripe_left_alone", reason="other_product")
    made = selling.double.simulate.checkout(await other_price(selling), email="ada@example.com", metadata=ADA)
    selling.double.simulate.refund(made["id"], amount=100)
    selling.double.simulate.dispute(made["id"])
    selling.double.simulate.pay_once(700, customer=made["customer"])
    selling.double.simulate.decline(made["customer"])
    await selling.double.clock.advance(MONTH)
    selling.harness.now = selling.double.clock.time
    await selling.deliver_all()
    found = await outcomes(selling)
    assert found["customer.subscription.created"] == {"other_product"}
    assert found["payment_intent.payment_failed"] == {"other_product"}
    assert found["charge.dispute.created"] == {"other_product"}
    # The product and the price that Nest sells are in the account too.
    for of_both in ("product.created", "price.created"):
        assert found.pop(of_both) == {"other_product", "read"}
    assert set.union(*found.values()) == {"other_product"}
    assert {name: await selling.count(name) for name in CALLED} == dict.fromkeys(CALLED, 0)
    assert selling.mails() == selling.harness.published_of(EnsureUser) == []
    assert counter("nest_stripe_left_alone", reason="other_product") > before


async def test_neither_of_two_products_is_cancelled_as_a_duplicate(selling: Shop) -> None:
    mug = selling.double.simulate.checkout(await other_price(selling), email="ada@example.com", metadata=ADA)
    await selling.next_second()
    beak = selling.double.simulate.checkout(selling.price, customer=mug["customer"], metadata=ADA)
    await selling.next_second()
    other = selling.double.simulate.checkout(await other_price(selling), customer=mug["customer"], metadata=ADA)
    await selling.deliver_all()
    assert selling.harness.published_of(CancelDuplicateSubscription) == []
    assert {selling.double.object("subscription", each["id"])["status"] for each in (mug, beak, other)} == {"active"}
    assert selling.mails() == [("welcome", "ada@example.com")]
    assert await selling.count("subscriptions") == 1
    assert (await selling.record(beak["id"]))["userId"] == "user_ada"


async def test_records_from_before_the_setting_cause_no_cancellation(shop: Shop, open_shop: OpenShop) -> None:
    mug = shop.double.simulate.checkout(await other_price(shop), email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    await shop.next_second()
    selling: Shop = await open_shop(stripe_products=shop.double.object("price", shop.price)["product"])
    with pytest.raises(Refused):
        await selling.harness.deliver(GetSubscriptionHeartbeat(user_id="user_ada"))
    beak = selling.double.simulate.checkout(selling.price, customer=mug["customer"], metadata=ADA)
    await selling.deliver_all()
    assert selling.harness.published_of(CancelDuplicateSubscription) == []
    assert selling.double.object("subscription", beak["id"])["status"] == "active"
    view = await selling.harness.deliver(GetSubscription(subscription_id=mug["id"]))
    assert (view["status"], view["active"], view["entitled"]) == ("active", False, False)


async def test_a_subscription_of_several_products_is_nests_and_only_announced(selling: Shop) -> None:
    beak = selling.double.simulate.checkout(selling.price, email="ada@example.com", metadata=ADA)
    await selling.deliver_all()
    await selling.next_second()
    yearly = {"recurring[interval]": "month", "recurring[interval_count]": "1"}
    product = {"currency": "usd", "unit_amount": "900", "product_data[name]": "Mug"}
    mug = (await selling.post("/v1/prices", **yearly, **product))["id"]
    both = await selling.post(
        "/v1/subscriptions",
        customer=beak["customer"],
        **{"items[0][price]": mug, "items[1][price]": selling.price, "metadata[user_id]": "user_ada"},
    )
    await selling.deliver_all()
    record = await selling.record(both["id"])
    assert record["stpProductId"] == selling.double.object("price", selling.price)["product"]
    assert len(selling.harness.published_of(DuplicateSubscriptionFound)) == 1
    assert selling.double.object("subscription", both["id"])["status"] == "active"


async def test_a_subscription_that_changes_to_another_product_no_longer_entitles(selling: Shop) -> None:
    beak = selling.double.simulate.checkout(selling.price, email="ada@example.com", metadata=ADA)
    await selling.deliver_all()
    item = selling.double.object("subscription", beak["id"])["items"]["data"][0]["id"]
    mug = await other_price(selling)
    await selling.post(f"/v1/subscriptions/{beak['id']}", **{"items[0][id]": item, "items[0][price]": mug})
    await selling.deliver_all()
    changed = selling.harness.published_of(SubscriptionChanged)[-1]
    assert (changed.entitled, "stpProductId" in changed.changed) == (False, True)
    with pytest.raises(Refused):
        await selling.harness.deliver(GetSubscriptionHeartbeat(user_id="user_ada"))


async def test_payments_of_nests_product_are_recorded_beside_others(selling: Shop) -> None:
    made = selling.double.simulate.checkout(selling.price, email="ada@example.com", metadata=ADA)
    selling.double.simulate.dispute(made["id"])
    await selling.deliver_all()
    await selling.post(
        "/v1/payment_intents",
        **{"amount": "100", "currency": "usd", "customer": made["customer"], "metadata[user_id]": "user_ada"},
    )
    await selling.deliver_all()
    assert (await selling.count("payments"), await selling.count("disputes")) == (2, 1)


@pytest.mark.parametrize("command", [ImportStripeAccount(), ReconcileSubscriptions(repair=True)])
async def test_runs_leave_other_products_alone(command: Any, selling: Shop) -> None:
    mug = selling.double.simulate.checkout(await other_price(selling), email="eve@example.com")
    selling.double.simulate.dispute(mug["id"])
    selling.double.simulate.checkout(selling.price, email="ada@example.com", metadata=ADA)
    selling.harness.now = max(selling.harness.now, selling.double.clock.time)
    done = await finish(selling, command)
    assert (done["status"], await differences(selling, done) if done["differences"] else []) == ("done", [])
    assert [await selling.count(name) for name in CALLED[:4]] == [1, 1, 0, 1]
    assert selling.harness.published_of(EnsureUser) == []
    done = await finish(selling, ReconcileSubscriptions(repair=False))
    assert done["differences"] == 0


async def test_with_all_products_named_records_equal_stripe(selling: Shop) -> None:
    await RandomWorkload(selling.double, selling.price, seed=3).run(customers=4, days=40)
    selling.harness.now = selling.double.clock.time
    await selling.deliver_all()
    assert (await finish(selling, ReconcileSubscriptions(repair=False)))["differences"] == 0


@pytest.mark.parametrize("livemode", [False, True])
async def test_events_of_connected_accounts_are_left_alone(livemode: bool, shop: Shop) -> None:  # noqa: FBT001
    before, other_mode = counter("nest_stripe_left_alone", reason="other_account"), counter("nest_stripe_other_mode")
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    calls = len(shop.double.log)
    for event in shop.events_of(made["id"]):
        await shop.deliver({**event, "account": "acct_1connected", "livemode": livemode})
    rows = await shop.event_rows()
    assert {(row["account"], row["outcome"]) for row in rows} == {("acct_1connected", "other_account")}
    assert counter("nest_stripe_left_alone", reason="other_account") == before + len(rows)
    assert counter("nest_stripe_other_mode") == other_mode
    assert (len(shop.double.log), shop.harness.published_of(SendMail), await shop.count("subscriptions")) == (
        calls,
        [],
        0,
    )


async def test_a_thin_event_of_a_connected_account_is_left_alone(shop: Shop) -> None:
    thin = {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v1.customer.subscription.created",
        "created": "2026-11-21T06:05:00.000Z",
        "livemode": False,
        "context": "acct_1connected",
        "related_object": {"id": "sub_1", "type": "subscription", "url": "/v1/subscriptions/sub_1"},
    }
    await shop.deliver_thin(thin)
    assert [row["outcome"] for row in await shop.event_rows()] == ["other_account"]
    assert shop.harness.published == []
