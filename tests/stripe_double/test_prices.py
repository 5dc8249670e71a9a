"""Products, prices and features of the double, as Stripe's library reads them."""

from decimal import Decimal
from typing import Any

import pytest
import stripe

from services.stripe_double.prices import amount_of
from tests.stripe_double.shop import Shop

TIERS = [{"up_to": 10, "unit_amount": 100}, {"up_to": "inf", "unit_amount": 50, "flat_amount": 1000}]
MONTHLY = {"interval": "month"}


async def product(shop: Shop, **params: Any) -> str:
    return str((await shop.api.products.create_async({"name": "Beak", **params})).id)


async def price(shop: Shop, **params: Any) -> Any:
    fields = {"product": await product(shop), "currency": "usd", "recurring": MONTHLY, **params}
    return await shop.api.prices.create_async(fields)


async def test_currency_options_and_tiers_are_included_only_if_expanded(shop: Shop) -> None:
    made = await price(
        shop,
        billing_scheme="tiered",
        tiers_mode="graduated",
        tiers=TIERS,
        currency_options={
            "eur": {"tiers": [{"up_to": "inf", "unit_amount_decimal": "0.5"}], "tax_behavior": "inclusive"}
        },
    )
    plain = (await shop.api.prices.retrieve_async(made.id)).to_dict()
    assert plain.keys() & {"tiers", "currency_options"} == set()
    assert (plain["unit_amount"], plain["tiers_mode"], plain["billing_scheme"]) == (None, "graduated", "tiered")
    found = await shop.api.prices.retrieve_async(
        made.id, {"expand": ["currency_options", "tiers", "currency_options.eur.tiers"]}
    )
    assert [tier["up_to"] for tier in found.tiers] == [10, None]
    assert [tier["unit_amount"] for tier in found.currency_options["eur"]["tiers"]] == [None]
    assert found.currency_options["eur"]["tax_behavior"] == "inclusive"
    assert "tiers" not in found.currency_options["usd"]
    flat = await price(shop, unit_amount=900)
    assert "tiers" not in await shop.api.prices.retrieve_async(flat.id, {"expand": ["tiers"]})
    (listed,) = (
        await shop.api.prices.list_async({"product": made.product, "expand": ["data.currency_options.eur.tiers"]})
    ).data
    assert len(listed.currency_options["eur"]["tiers"]) == 1


@pytest.mark.parametrize(
    ("params", "quantity", "amount"),
    [
        ({"unit_amount": 500}, 3, 1500),
        ({"unit_amount_decimal": "0.5"}, 3, 2),
        ({"billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": TIERS}, 0, 0),
        ({"billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": TIERS}, 10, 1000),
        ({"billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": TIERS}, 12, 2100),
        ({"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": TIERS}, 12, 1600),
        ({"unit_amount": 500, "transform_quantity": {"divide_by": 5, "round": "up"}}, 6, 1000),
        ({"unit_amount": 500, "transform_quantity": {"divide_by": 5, "round": "down"}}, 6, 500),
        ({"unit_amount": 500, "transform_quantity": {"divide_by": 5, "round": "up"}}, Decimal("5.5"), 1000),
    ],
)
async def test_quantity_is_charged_by_the_scheme(
    shop: Shop, params: dict[str, Any], quantity: int | Decimal, amount: int
) -> None:
    made = await price(shop, **params)
    assert amount_of(shop.double.account.get("price", made.id), quantity) == amount


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({}, "unit_amount"),
        ({"unit_amount": 1, "unit_amount_decimal": "1"}, "unit_amount"),
        ({"unit_amount": 100_000_000}, "unit_amount"),
        ({"unit_amount_decimal": "NaN"}, "unit_amount_decimal"),
        ({"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": TIERS[:1]}, "tiers"),
        ({"billing_scheme": "tiered", "tiers": TIERS}, "tiers_mode"),
        (
            {"unit_amount": 1, "currency_options": {"usd": {"unit_amount": 1}}},
            "currency_options[usd][currency_options]",
        ),
        ({"unit_amount": 1, "recurring": {"interval": "month", "usage_type": "metered"}}, "recurring[meter]"),
        (
            {"unit_amount": 1, "recurring": {"interval": "month", "usage_type": "metered", "meter": "mtr_none"}},
            "recurring[meter]",
        ),
        (
            {"unit_amount": 1, "recurring": {"interval": "month", "trial_period_days": 731}},
            "recurring[trial_period_days]",
        ),
    ],
)
async def test_an_impossible_price_is_refused(shop: Shop, params: dict[str, Any], param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await price(shop, **params)
    assert refused.value.param == param


async def test_a_lookup_key_is_transferred_to_a_new_price(shop: Shop) -> None:
    old = await price(shop, unit_amount=500, lookup_key="pro_monthly")
    with pytest.raises(stripe.InvalidRequestError):
        await price(shop, unit_amount=600, lookup_key="pro_monthly")
    new = await price(shop, unit_amount=600, lookup_key="pro_monthly", transfer_lookup_key=True)
    (found,) = (await shop.api.prices.list_async({"lookup_keys": ["pro_monthly"]})).data
    assert found.id == new.id
    assert (await shop.api.prices.retrieve_async(old.id)).lookup_key is None
    assert shop.types().count("price.updated") == 1


async def test_changes_of_products_and_prices_are_events(shop: Shop) -> None:
    made = await price(shop, unit_amount=500)
    await shop.api.products.update_async(made.product, {"marketing_features": [{"name": "Fast"}]})
    await shop.api.products.update_async(made.product, {"marketing_features": [{"name": "Fast"}]})
    await shop.api.prices.update_async(made.id, {"currency_options": {"eur": {"unit_amount": 450}}})
    await shop.api.prices.update_async(made.id, {"tax_behavior": "exclusive", "metadata": {"nest_order": "1"}})
    unpriced = await product(shop)
    await shop.api.products.delete_async(unpriced)
    assert shop.types()[-6:] == [
        "price.created",
        "product.updated",
        "price.updated",
        "price.updated",
        "product.created",
        "product.deleted",
    ]
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.products.delete_async(made.product)
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.prices.update_async(made.id, {"tax_behavior": "inclusive"})


async def test_a_product_grants_features(shop: Shop) -> None:
    own = await product(shop)
    feature = await shop.api.entitlements.features.create_async({"name": "Reports", "lookup_key": "reports"})
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.entitlements.features.create_async({"name": "Other", "lookup_key": "reports"})
    attached = await shop.api.products.features.create_async(own, {"entitlement_feature": feature.id})
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.products.features.create_async(own, {"entitlement_feature": feature.id})
    (listed,) = (await shop.api.products.features.list_async(own)).data
    assert listed.entitlement_feature.lookup_key == "reports"
    assert (await shop.api.products.features.retrieve_async(own, attached.id)).id == attached.id
    await shop.api.products.features.delete_async(own, attached.id)
    assert (await shop.api.products.features.list_async(own)).data == []
    archived = await shop.api.entitlements.features.update_async(feature.id, {"active": False})
    assert not archived.active
    assert (await shop.api.entitlements.features.list_async()).data == []
