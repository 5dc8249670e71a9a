from typing import Any

import pytest
import stripe

from tests.stripe_double.shop import Shop


async def coupon(shop: Shop, **params: Any) -> str:
    return str((await shop.api.coupons.create_async({"percent_off": 25, **params})).id)


async def code(shop: Shop, **params: Any) -> str:
    promotion = {"type": "coupon", "coupon": await coupon(shop, duration="forever")}
    return str((await shop.api.promotion_codes.create_async({"promotion": promotion, **params})).id)


def totals(shop: Shop) -> list[int]:
    return [invoice["total"] for invoice in shop.double.objects("invoice")]


async def test_a_coupon_discounts_the_subscription_and_its_invoices(shop: Shop) -> None:
    coupon_id = await coupon(shop, percent_off=50, duration="forever", id="HALF")
    subscription = await shop.subscription(
        discounts=[{"coupon": coupon_id}], expand=["discounts.source.coupon", "latest_invoice"]
    )
    (discount,) = subscription.discounts
    assert (discount.source.coupon.id, discount.subscription) == ("HALF", subscription.id)
    assert subscription.latest_invoice.total_discount_amounts[0].to_dict() == {"amount": 500, "discount": discount.id}
    assert (await shop.api.coupons.retrieve_async("HALF")).times_redeemed == 1
    await shop.advance(days=32)
    assert totals(shop) == [500, 500]


async def test_a_coupon_for_once_ends_after_the_first_invoice_above_zero(shop: Shop) -> None:
    subscription = await shop.subscription(discounts=[{"coupon": await coupon(shop)}], trial_period_days=7)
    assert len(subscription.discounts) == 1
    await shop.advance(days=45)
    assert totals(shop) == [0, 750, 1000]
    assert (await shop.read(subscription)).discounts == []
    assert "customer.discount.deleted" in shop.types()


async def test_a_repeating_coupon_ends_after_its_months(shop: Shop) -> None:
    repeating = await coupon(shop, duration="repeating", duration_in_months=2)
    await shop.subscription(discounts=[{"coupon": repeating}])
    await shop.advance(days=93)
    assert totals(shop) == [750, 750, 1000, 1000]


async def test_amount_off_never_exceeds_the_amount(shop: Shop) -> None:
    much = await coupon(shop, percent_off=None, amount_off=5000, currency="usd")
    customer = await shop.customer(None)
    subscription = await shop.subscription(
        customer.id, discounts=[{"coupon": much}], payment_behavior="default_incomplete"
    )
    assert (subscription.status, totals(shop)) == ("active", [0])


async def test_discounts_are_replaced_and_removed(shop: Shop) -> None:
    subscription = await shop.subscription(discounts=[{"coupon": await coupon(shop, duration="forever")}])
    other = await coupon(shop, duration="forever")
    changed = await shop.api.subscriptions.update_async(subscription.id, {"discounts": [{"coupon": other}]})
    assert len(changed.discounts) == 1
    assert changed.discounts != subscription.discounts
    cleared = await shop.api.subscriptions.update_async(subscription.id, {"discounts": ""})
    assert cleared.discounts == []


async def test_a_promotion_code_redeems_its_coupon(shop: Shop) -> None:
    code_id = await code(shop, code="SPRING")
    subscription = await shop.subscription(discounts=[{"promotion_code": code_id}], expand=["discounts"])
    assert subscription.discounts[0].promotion_code == code_id
    (found,) = (await shop.api.promotion_codes.list_async({"code": "SPRING"})).data
    assert found.times_redeemed == 1
    assert totals(shop) == [750]


@pytest.mark.parametrize("params", [{"active": False}, {"max_redemptions": 1}, {"expires_at": 1}])
async def test_a_used_up_expired_or_inactive_promotion_code_is_refused(shop: Shop, params: dict[str, Any]) -> None:
    code_id = await code(shop, **params)
    if "max_redemptions" in params:
        await shop.subscription(discounts=[{"promotion_code": code_id}])
    with pytest.raises(stripe.InvalidRequestError, match="expired or inactive"):
        await shop.subscription(discounts=[{"promotion_code": code_id}])


async def test_a_promotion_code_with_restrictions_is_refused_to_others(shop: Shop) -> None:
    subscription = await shop.subscription()
    restricted_to_customer = await code(shop, customer=subscription.customer)
    restricted_to_first = await code(shop, restrictions={"first_time_transaction": True})
    with pytest.raises(stripe.InvalidRequestError, match="another customer"):
        await shop.subscription(discounts=[{"promotion_code": restricted_to_customer}])
    with pytest.raises(stripe.InvalidRequestError, match="without prior"):
        await shop.subscription(subscription.customer, discounts=[{"promotion_code": restricted_to_first}])


async def test_a_used_up_coupon_is_refused_and_not_counted_again(shop: Shop) -> None:
    coupon_id = await coupon(shop, max_redemptions=1)
    await shop.subscription(discounts=[{"coupon": coupon_id}])
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.subscription(discounts=[{"coupon": coupon_id}])
    assert caught.value.code == "coupon_expired"
    assert (await shop.api.coupons.retrieve_async(coupon_id)).times_redeemed == 1


@pytest.mark.parametrize(
    "params",
    [
        {"percent_off": None},
        {"amount_off": 5, "currency": "usd"},
        {"percent_off": None, "amount_off": 5},
        {"percent_off": 101},
        {"duration": "repeating"},
    ],
)
async def test_invalid_coupons_are_refused(shop: Shop, params: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await coupon(shop, **params)
