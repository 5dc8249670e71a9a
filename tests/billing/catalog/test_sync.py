"""Products and prices as they are read from Stripe: by events, by the first sync, and by comparisons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from services.billing.catalog import store
from services.stripe_double import FaultKind
from shared.messages.billing.plans import FollowPrice, FollowProduct, ListPlans, SyncCatalog
from shared.messages.billing.runs import (
    SCHEDULE,
    ImportStripeAccount,
    KeepStripeSchedule,
    ReconcileSubscriptions,
)
from tests.billing.conftest import API_KEY, FAST, Shop
from tests.billing.stripe_runs import deliver_timers, differences, finish

TIERED = {
    "billing_scheme": "tiered",
    "tiers_mode": "graduated",
    "tiers[0][up_to]": "5",
    "tiers[0][unit_amount]": "100",
    "tiers[1][up_to]": "inf",
    "tiers[1][unit_amount_decimal]": "0.5",
    "tiers[1][flat_amount]": "50",
    "currency_options[jpy][tiers][0][up_to]": "inf",
    "currency_options[jpy][tiers][0][unit_amount]": "15",
    "currency_options[jpy][tax_behavior]": "inclusive",
}


@pytest.fixture(autouse=True)
def _always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(store, "LOAD_SHARE", float("inf"))


async def plans(shop: Shop) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await shop.harness.deliver(ListPlans()))["plans"]
    return found


async def sell(shop: Shop, *, name: str = "Beak Pro", product: dict[str, Any] | None = None, **form: Any) -> Any:
    """Create a product with a monthly price; return the price."""
    made = await shop.post("/v1/products", name=name, **(product or {}))
    fields = {"currency": "usd", "unit_amount": "900", "recurring[interval]": "month"}
    if "billing_scheme" in form:
        del fields["unit_amount"]
    return await shop.post("/v1/prices", **{**fields, "product": made["id"], **form})


async def delete(shop: Shop, path: str) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.delete(shop.double.url + path, headers={"authorization": f"Bearer {API_KEY}"})
    assert response.status_code == 200, response.text


async def deliver_catalog(shop: Shop) -> None:
    for event in shop.double.objects("event"):
        if event["type"].startswith(("product.", "price.")):
            await shop.deliver(event)


async def test_plan_is_listed_with_everything_that_stripe_says(shop: Shop) -> None:
    made = await sell(
        shop,
        product={
            "description": "For teams",
            "marketing_features[0][name]": "Everything in Beak",
            "unit_label": "seat",
            "metadata[nest]": "true",
            "metadata[nest_max_quantity]": "50",
        },
        lookup_key="pro_monthly",
        tax_behavior="exclusive",
        **{"recurring[trial_period_days]": "14", "recurring[interval_count]": "3", **TIERED},
    )
    feature = await shop.post("/v1/entitlements/features", name="SSO", lookup_key="sso")
    await shop.post(f"/v1/products/{made['product']}/features", entitlement_feature=feature["id"])
    await deliver_catalog(shop)
    first, second = (
        {
            "up_to": 5,
            "unit_amount": 100,
            "unit_amount_decimal": "100",
            "flat_amount": None,
            "flat_amount_decimal": None,
        },
        {
            "up_to": None,
            "unit_amount": None,
            "unit_amount_decimal": "0.5",
            "flat_amount": 50,
            "flat_amount_decimal": "50",
        },
    )
    yen = {
        "up_to": None,
        "unit_amount": 15,
        "unit_amount_decimal": "15",
        "flat_amount": None,
        "flat_amount_decimal": None,
    }
    nothing = {"unit_amount": None, "unit_amount_decimal": None}
    assert await plans(shop) == [
        {
            "product_id": made["product"],
            "name": "Beak Pro",
            "description": "For teams",
            "marketing_features": ["Everything in Beak"],
            "features": ["sso"],
            "unit_label": "seat",
            "prices": [
                {
                    "price_id": made["id"],
                    "lookup_key": "pro_monthly",
                    "interval": "month",
                    "interval_count": 3,
                    "usage_type": "licensed",
                    "trial_days": 14,
                    "max_quantity": 50,
                    "divide_by": None,
                    "round": None,
                    "tiers_mode": "graduated",
                    "currency": "usd",
                    "amounts": {
                        "usd": {**nothing, "decimals": 2, "tax_behavior": "exclusive", "tiers": [first, second]},
                        "jpy": {**nothing, "decimals": 0, "tax_behavior": "inclusive", "tiers": [yen]},
                    },
                }
            ],
        }
    ]


async def test_events_keep_the_plans_whatever_their_order(shop: Shop) -> None:
    made = await sell(shop)
    for event in reversed(shop.double.objects("event")):
        await shop.deliver(event)
        await shop.deliver(event)
    assert {plan["name"] for plan in await plans(shop)} == {"Beak", "Beak Pro"}
    await shop.post(f"/v1/products/{made['product']}", name="Beak Team")
    await shop.post(f"/v1/prices/{made['id']}", **{"currency_options[eur][unit_amount]": "850"})
    await deliver_catalog(shop)
    (team,) = [plan for plan in await plans(shop) if plan["name"] == "Beak Team"]
    assert {code: each["unit_amount"] for code, each in team["prices"][0]["amounts"].items()} == {
        "usd": 900,
        "eur": 850,
    }
    assert {row["outcome"] for row in await shop.event_rows()} == {"read"}


@pytest.mark.parametrize("part", ["product", "price"])
async def test_what_is_archived_is_no_longer_listed_but_still_known(shop: Shop, part: str) -> None:
    made = await sell(shop)
    await deliver_catalog(shop)
    await shop.post(f"/v1/{part}s/{made['product'] if part == 'product' else made['id']}", active="false")
    await deliver_catalog(shop)
    catalog = shop.harness.context.catalog
    assert [plan["name"] for plan in await plans(shop)] == ["Beak"]
    assert (await catalog.price(made["id"])).product_id == made["product"]
    assert (await catalog.product(made["product"])).name == "Beak Pro"


async def test_deleted_product_is_settled_as_missing(shop: Shop) -> None:
    made = await shop.post("/v1/products", name="Mistake")
    await deliver_catalog(shop)
    await delete(shop, f"/v1/products/{made['id']}")
    await deliver_catalog(shop)
    row = await shop.harness.database["stripe_products"].find_one({"_id": made["id"]})
    assert row is not None
    assert row["deletedAt"] is not None
    assert (await finish(shop, ReconcileSubscriptions(repair=False)))["differences"] == 0


async def test_products_of_others_are_left_alone(open_shop: Callable[..., Any], double: Any, price: str) -> None:
    own = double.object("price", price)["product"]
    shop: Shop = await open_shop(stripe_products=(own,))
    await sell(shop)
    await deliver_catalog(shop)
    await shop.read_catalog()
    assert [plan["product_id"] for plan in await plans(shop)] == [own]
    assert (await shop.count("stripe_products"), await shop.count("stripe_prices")) == (1, 1)
    assert sorted(row["outcome"] for row in await shop.event_rows()) == ["other_product"] * 2 + ["read"] * 2


async def test_new_installation_reads_the_catalog_at_once(shop: Shop) -> None:
    for number in range(3):
        await sell(shop, name=f"Plan {number}")
    await shop.harness.deliver(KeepStripeSchedule(key=SCHEDULE, kind="sweep"))
    await shop.settle()
    assert len(await plans(shop)) == 4
    assert shop.harness.published_of(FollowProduct) == []


async def test_upgraded_installation_reads_the_catalog_after_a_pause(shop: Shop) -> None:
    shop.harness.now = shop.harness.now.replace(microsecond=0)
    await shop.harness.deliver(KeepStripeSchedule(key=SCHEDULE, kind="sweep"))
    shop.harness.clear()
    await shop.harness.deliver(KeepStripeSchedule(key=SCHEDULE, kind="sweep"))
    [at] = [at for at, command in await shop.harness.delayed() if isinstance(command, SyncCatalog)]
    assert (at - shop.harness.now).total_seconds() == 120


async def test_second_sync_within_an_hour_reads_nothing(shop: Shop) -> None:
    await shop.read_catalog()
    reads = shop.reads("/v1/products")
    await shop.read_catalog()
    assert shop.reads("/v1/products") == reads == 1


async def test_sync_continues_page_by_page(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.billing.stripe_api.lists import LISTS  # noqa: PLC0415

    monkeypatch.setitem(LISTS, "products", ("/v1/products", {"limit": 2}))
    monkeypatch.setitem(LISTS, "prices", ("/v1/prices", {"limit": 2, "expand": ["data.currency_options"]}))
    for number in range(4):
        await sell(shop, name=f"Plan {number}")
    await shop.read_catalog()
    assert (shop.reads("/v1/products"), shop.reads("/v1/prices")) == (3, 3)
    assert len(await plans(shop)) == 5


async def test_later_sync_finds_changes_without_an_event(shop: Shop) -> None:
    made = await sell(shop)
    await shop.read_catalog()
    feature = await shop.post("/v1/entitlements/features", name="SSO", lookup_key="sso")
    await shop.post(f"/v1/products/{made['product']}/features", entitlement_feature=feature["id"])
    await shop.harness.database["stripe_catalog"].delete_many({})
    await shop.read_catalog()
    assert [each.product_id for each in shop.harness.published_of(FollowProduct)] == [made["product"]]
    assert shop.harness.published_of(FollowPrice) == []
    (plan,) = [plan for plan in await plans(shop) if plan["name"] == "Beak Pro"]
    assert plan["features"] == ["sso"]


async def test_outage_delays_the_sync(shop: Shop) -> None:
    shop.harness.context.stripe.calls.timeouts = FAST
    shop.double.faults.add(FaultKind.SERVER_ERROR)
    await shop.harness.deliver(SyncCatalog())
    shop.double.faults.clear()
    shop.harness.context.stripe.calls.breaker.succeeded()
    await deliver_timers(shop)
    await shop.settle()
    assert len(await plans(shop)) == 1


async def test_key_without_the_right_to_features_still_lists_plans(shop: Shop) -> None:
    shop.double.faults.add(FaultKind.REFUSED, path="/v1/products/*/features", status=403, type="invalid_request_error")
    await shop.read_catalog()
    assert [plan["features"] for plan in await plans(shop)] == [[]]


@pytest.mark.parametrize(
    ("part", "change", "kind"),
    [
        ("product", {"product.name": "Other"}, "differs"),
        ("price", {"price.amounts.usd.unitAmount": 1}, "differs"),
        ("product", None, "missing_here"),
        ("price", None, "missing_here"),
    ],
)
async def test_comparison_finds_and_repairs_drift(
    shop: Shop, part: str, change: dict[str, Any] | None, kind: str
) -> None:
    await shop.read_catalog()
    rows = shop.harness.database[f"stripe_{part}s"]
    if change is None:
        await rows.delete_many({})
    else:
        await rows.update_one({}, {"$set": change, "$inc": {"version": 1}})
    verified = await finish(shop, ReconcileSubscriptions(repair=False))
    assert [(each["object"], each["kind"]) for each in await differences(shop, verified)] == [(part, kind)]
    assert (await finish(shop, ReconcileSubscriptions()))["counts"]["repaired"] == 1
    assert [plan["prices"][0]["amounts"]["usd"]["unit_amount"] for plan in await plans(shop)] == [500]
    assert (await finish(shop, ReconcileSubscriptions(repair=False)))["differences"] == 0


async def test_record_that_stripe_lacks_is_reported(shop: Shop) -> None:
    await shop.read_catalog()
    rows = shop.harness.database["stripe_products"]
    document = await rows.find_one({})
    assert document is not None
    await rows.insert_one({**document, "_id": "prod_gone"})
    verified = await finish(shop, ReconcileSubscriptions())
    assert [(each["stripe_id"], each["kind"]) for each in await differences(shop, verified)] == [
        ("prod_gone", "missing_there")
    ]


async def test_import_takes_the_catalog_over(shop: Shop) -> None:
    await sell(shop)
    done = await finish(shop, ImportStripeAccount())
    assert (done["counts"]["taken_products"], done["counts"]["taken_prices"], done["differences"]) == (2, 2, 0)
    assert len(await plans(shop)) == 2
