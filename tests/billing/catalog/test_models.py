"""Which products and prices are plans, their order, and how they are shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.billing.catalog.models import CatalogSync, Offer, Plan, max_quantity, plans_of
from services.billing.stripe_api.catalog_models import PriceAmount, PriceTier, Recurring, StripePrice, StripeProduct
from shared.errors import Refusal
from shared.messages.billing.errors import PriceInactive, PriceNotSold, QuantityNotAllowed

NOW = datetime(2026, 12, 1, tzinfo=UTC)
MONTHLY = Recurring(interval="month", interval_count=1, usage_type="licensed", trial_days=None, meter_id=None)


def product(product_id: str, *, active: bool = True, name: str = "Beak", **metadata: str) -> StripeProduct:
    return StripeProduct(
        id=product_id,
        name=name,
        description=None,
        active=active,
        marketing_features=(),
        unit_label=None,
        default_price_id=None,
        metadata=metadata,
        created=NOW,
        livemode=False,
    )


def amount(unit_amount: int | None, *tiers: PriceTier) -> PriceAmount:
    text = None if unit_amount is None else str(unit_amount)
    return PriceAmount(unit_amount=unit_amount, unit_amount_decimal=text, tax_behavior="exclusive", tiers=tiers)


def tier(up_to: int | None, unit_amount: int) -> PriceTier:
    return PriceTier(
        up_to=up_to,
        unit_amount=unit_amount,
        unit_amount_decimal=str(unit_amount),
        flat_amount=None,
        flat_amount_decimal=None,
    )


def price(
    price_id: str, product_id: str, unit_amount: int = 500, *, active: bool = True, **metadata: str
) -> StripePrice:
    return StripePrice(
        id=price_id,
        product_id=product_id,
        active=active,
        currency="usd",
        amounts={"usd": amount(unit_amount)},
        recurring=MONTHLY,
        tiers_mode=None,
        divide_by=None,
        round=None,
        lookup_key=None,
        nickname=None,
        metadata=metadata,
        created=NOW,
        livemode=False,
    )


def ids(plans: tuple[Plan, ...]) -> dict[str, list[str]]:
    return {plan.product.id: [each.id for each in plan.prices] for plan in plans}


@pytest.mark.parametrize(
    ("listed", "marks", "expected"),
    [
        ((), {"a": {}, "b": {}}, ["a", "b"]),
        ((), {"a": {"nest": "true"}, "b": {}}, ["a"]),
        ((), {"a": {"nest": " True "}, "b": {"nest": "no"}}, ["a"]),
        ((), {"a": {"nest": "false"}, "b": {}}, ["b"]),
        (("b",), {"a": {"nest": "true"}, "b": {}}, ["b"]),
        (("a", "b"), {"a": {}, "b": {"nest": "false"}}, ["a"]),
        (("c",), {"a": {}, "b": {}}, []),
    ],
)
def test_setting_decides_and_metadata_without_it(
    listed: tuple[str, ...], marks: dict[str, dict[str, str]], expected: list[str]
) -> None:
    products = [product(name, **metadata) for name, metadata in marks.items()]
    prices = [price(f"price_{name}", name) for name in marks]
    assert list(ids(plans_of(products, prices, listed=frozenset(listed)))) == expected


@pytest.mark.parametrize(
    "hidden",
    [
        price("price_1", "a", active=False),
        price("price_1", "a", nest="false"),
        replace(price("price_1", "a"), recurring=None),
        price("price_1", "other"),
    ],
    ids=["archived", "excluded", "one-time", "another product"],
)
def test_product_without_a_price_on_sale_is_no_plan(hidden: StripePrice) -> None:
    assert plans_of([product("a")], [hidden], listed=frozenset()) == ()
    assert plans_of([product("a", active=False)], [price("p", "a")], listed=frozenset()) == ()


def test_plans_and_prices_are_ordered_by_metadata_then_by_amount() -> None:
    products = [product("cheap"), product("dear"), product("second", nest_order="2"), product("first", nest_order="-1")]
    prices = [
        price("dear_month", "dear", 900),
        price("cheap_year", "cheap", 9000),
        price("cheap_month", "cheap", 100),
        price("cheap_top", "cheap", 5000, nest_order="1"),
        price("cheap_odd", "cheap", 50, nest_order="soon"),
        price("first_month", "first", 10_000),
        replace(price("second_free", "second"), amounts={"usd": amount(None, tier(5, 0), tier(None, 10))}),
        price("second_paid", "second", 1),
    ]
    assert list(ids(plans_of(products, prices, listed=frozenset())).items()) == [
        ("first", ["first_month"]),
        ("second", ["second_free", "second_paid"]),
        ("cheap", ["cheap_top", "cheap_odd", "cheap_month", "cheap_year"]),
        ("dear", ["dear_month"]),
    ]


def test_lists_have_an_end() -> None:
    products = [product(f"p{number:03}") for number in range(120)]
    prices = [price(f"{each.id}_{number}", each.id) for each in products for number in range(60)]
    plans = plans_of(products, prices, listed=frozenset())
    assert (len(plans), {len(plan.prices) for plan in plans}) == (100, {50})


@pytest.mark.parametrize(
    ("of_price", "of_product", "expected"),
    [
        ({}, {}, 999_999),
        ({"nest_max_quantity": "25"}, {}, 25),
        ({}, {"nest_max_quantity": "10"}, 10),
        ({"nest_max_quantity": "5"}, {"nest_max_quantity": "10"}, 5),
        ({"nest_max_quantity": "0"}, {}, 1),
        ({"nest_max_quantity": "many"}, {}, 1),
        ({"nest_max_quantity": "999999999"}, {}, 999_999),
    ],
)
def test_quantity_is_limited_by_metadata_alone(
    of_price: dict[str, str], of_product: dict[str, str], expected: int
) -> None:
    assert max_quantity(price("p", "a", **of_price), product("a", **of_product)) == expected


@pytest.mark.parametrize(
    ("limits", "ordered", "expected"),
    [
        # Without the metadata only Stripe's bound holds.
        (({}, {}), None, 1),
        (({}, {}), 999_999, 999_999),
        (({"nest_max_quantity": "2"}, {}), 2, 2),
        (({"nest_max_quantity": "2"}, {}), 3, {"price_id": "p", "max_quantity": 2}),
        (({}, {"nest_max_quantity": "2"}), 3, {"price_id": "p", "max_quantity": 2}),
        (({"nest_max_quantity": "5"}, {"nest_max_quantity": "2"}), 3, 3),
        (({"nest_max_quantity": "many"}, {}), 2, {"price_id": "p", "max_quantity": 1}),
    ],
)
def test_quantity_for_sale_is_limited_by_metadata(
    limits: tuple[dict[str, str], dict[str, str]], ordered: int | None, expected: int | dict[str, object]
) -> None:
    of_price, of_product = limits
    offer = Offer(price=price("p", "a", **of_price), product=product("a", **of_product), listed=True)
    if isinstance(expected, int):
        assert offer.require_for_sale(ordered) == expected
        return
    with pytest.raises(QuantityNotAllowed) as refused:
        offer.require_for_sale(ordered)
    assert refused.value.meta == expected


def test_quantity_of_a_subscription_stays_allowed_after_its_limit_was_lowered() -> None:
    offer = Offer(price=price("p", "a", nest_max_quantity="2"), product=product("a"), listed=True)
    assert [offer.require_quantity(quantity, present=5) for quantity in (None, 4, 5)] == [5, 4, 5]
    with pytest.raises(QuantityNotAllowed):
        offer.require_quantity(6, present=5)


@pytest.mark.parametrize(
    ("offer", "refusal"),
    [
        (Offer(price=price("p", "a"), product=product("a"), listed=False), PriceNotSold),
        (Offer(price=price("p", "a", nest="False "), product=product("a"), listed=True), PriceNotSold),
        (Offer(price=price("p", "a"), product=product("a", nest="false"), listed=True), PriceNotSold),
        (Offer(price=price("p", "a", active=False), product=product("a"), listed=True), PriceInactive),
        (Offer(price=price("p", "a"), product=product("a", active=False), listed=True), PriceInactive),
        (Offer(price=price("p", "a"), product=None, listed=True), PriceInactive),
    ],
)
def test_only_active_prices_of_nest_are_for_sale(offer: Offer, refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        offer.require_for_sale(1)


@pytest.mark.parametrize(
    ("price_id", "own", "expected"),
    [("price_trial", None, 14), ("price_trial", 30, 30), ("price_other", None, None), ("price_other", 7, 7)],
)
def test_trial_price_shows_the_trial_that_nest_gives(price_id: str, own: int | None, expected: int | None) -> None:
    sold = replace(price(price_id, "a"), recurring=replace(MONTHLY, trial_days=own))
    (shown,) = Plan(product("a"), (sold,)).view({"price_trial": 14}).prices
    assert shown.trial_days == expected


def test_metered_price_has_no_quantity() -> None:
    metered = replace(MONTHLY, usage_type="metered", meter_id="mtr_1")
    assert max_quantity(replace(price("p", "a"), recurring=metered), product("a", nest_max_quantity="5")) is None


@pytest.mark.parametrize(
    ("currency", "decimals"), [("usd", 2), ("jpy", 0), ("kwd", 3), ("isk", 2), ("ugx", 2), ("huf", 2), ("xof", 0)]
)
def test_decimals_of_a_currency_are_those_that_stripe_counts(currency: str, decimals: int) -> None:
    # https://docs.stripe.com/currencies
    sold = replace(price("p", "a"), currency=currency, amounts={currency: amount(1000)})
    (view,) = Plan(product("a"), (sold,)).view({}).prices
    assert view.amounts[currency].decimals == decimals


@pytest.mark.parametrize(
    ("entitlements", "metadata", "expected"),
    [
        ((), {}, ()),
        ((), {"features": "reports, api,,reports "}, ("api", "reports")),
        (("sso",), {"features": "reports"}, ("sso",)),
    ],
)
def test_features_come_from_entitlements_or_else_from_metadata(
    entitlements: tuple[str, ...], metadata: dict[str, str], expected: tuple[str, ...]
) -> None:
    assert replace(product("a", **metadata), entitlements=entitlements).features == expected


def test_sync_is_due_after_an_hour_or_if_it_was_abandoned() -> None:
    begun = CatalogSync(id="account", began_at=NOW)
    assert (begun.due(NOW + timedelta(minutes=29)), begun.due(NOW + timedelta(minutes=30))) == (False, True)
    done = replace(begun, finished_at=NOW)
    assert (done.due(NOW + timedelta(minutes=59)), done.due(NOW + timedelta(minutes=60))) == (False, True)
