"""Tax rates of the double, and the taxes of invoices."""

from typing import Any

import pytest
import stripe

from services.stripe_double.tax_rates import amounts
from tests.stripe_double.shop import Shop


async def rate(shop: Shop, percentage: float, *, inclusive: bool = False) -> str:
    params = {"display_name": "VAT", "percentage": percentage, "inclusive": inclusive}
    return str((await shop.api.tax_rates.create_async(params)).id)


async def invoice_of(shop: Shop, subscription: Any) -> Any:
    return await shop.api.invoices.retrieve_async((await shop.read(subscription)).latest_invoice)


@pytest.mark.parametrize(
    ("percentages", "coupon", "expected"),
    [
        # percentages with whether they are inclusive; subtotal and total, each with and without tax; taxes
        ([], 0, ((1000, 1000), (1000, 1000), [])),
        ([(8.25, False)], 0, ((1000, 1000), (1083, 1000), [83])),
        ([(19, True)], 0, ((1000, 840), (1000, 840), [160])),
        ([(0, False)], 0, ((1000, 1000), (1000, 1000), [0])),
        ([(5, False), (9.975, False)], 0, ((1000, 1000), (1150, 1000), [50, 100])),
        ([(10, True), (5, False)], 0, ((1000, 909), (1045, 909), [91, 45])),
        ([(8.25, False)], 50, ((1000, 1000), (541, 500), [41])),
        ([(19, True)], 50, ((1000, 840), (500, 420), [80])),
        ([(19, False)], 100, ((1000, 1000), (0, 0), [0])),
    ],
)
async def test_an_invoice_has_the_taxes_of_its_subscription(
    shop: Shop, percentages: list[tuple[float, bool]], coupon: int, expected: Any
) -> None:
    rates = [await rate(shop, percentage, inclusive=inclusive) for percentage, inclusive in percentages]
    params: dict[str, Any] = {"default_tax_rates": rates} if rates else {}
    if coupon:
        made = await shop.api.coupons.create_async({"percent_off": coupon, "duration": "forever"})
        params["discounts"] = [{"coupon": made.id}]
    subscription = await shop.subscription(**params)
    assert [each.id for each in subscription.default_tax_rates] == rates
    invoice = await invoice_of(shop, subscription)
    assert (
        (invoice.subtotal, invoice.subtotal_excluding_tax),
        (invoice.total, invoice.total_excluding_tax),
        [tax.amount for tax in invoice.total_taxes],
    ) == expected
    assert invoice.amount_paid == invoice.total
    assert [each.id for each in invoice.default_tax_rates] == rates
    assert [tax.tax_behavior == "inclusive" for tax in invoice.total_taxes] == [each[1] for each in percentages]
    assert [tax.amount for tax in invoice.lines.data[0].taxes] == expected[2]
    assert all(tax.taxable_amount == invoice.total_excluding_tax for tax in invoice.total_taxes)


async def test_a_discount_is_divided_among_lines_and_prorations_are_taxed(shop: Shop) -> None:
    identifier = await rate(shop, 10)
    lines = [
        {"amount": 333, "discountable": True},
        {"amount": 667, "discountable": True},
        {"amount": -100, "discountable": False},
    ]
    totals = amounts(shop.double.account, [identifier], lines, 101)
    assert [line["taxes"][0]["taxable_amount"] for line in totals["lines"]] == [299, 600, -100]
    assert [line["taxes"][0]["amount"] for line in totals["lines"]] == [30, 60, -10]
    assert (totals["total"], totals["total_excluding_tax"], totals["total_taxes"][0]["amount"]) == (879, 799, 80)


async def test_tax_rates_of_a_subscription_are_changed_for_the_next_invoice(shop: Shop) -> None:
    subscription = await shop.subscription(default_tax_rates=[await rate(shop, 10)])
    await shop.api.subscriptions.update_async(subscription.id, {"default_tax_rates": [await rate(shop, 20)]})
    await shop.advance(days=32)
    assert (await invoice_of(shop, subscription)).total == 1200
    await shop.api.subscriptions.update_async(subscription.id, {"default_tax_rates": ""})
    assert (await shop.api.invoices.create_preview_async({"subscription": subscription.id})).total == 1000


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"percentage": 101}, "percentage"),
        ({"percentage": -1}, "percentage"),
        ({"percentage": "NaN"}, "percentage"),
        ({"percentage": "1.23456"}, "percentage"),
        ({"display_name": ""}, "display_name"),
        ({"inclusive": ""}, "inclusive"),
    ],
)
async def test_an_impossible_tax_rate_is_refused(shop: Shop, changed: dict[str, Any], param: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await shop.api.tax_rates.create_async({"display_name": "VAT", "percentage": 1, "inclusive": True, **changed})
    assert refused.value.param == param


async def test_an_inactive_tax_rate_stays_only_where_it_is(shop: Shop) -> None:
    identifier = await rate(shop, 10)
    subscription = await shop.subscription(default_tax_rates=[identifier])
    await shop.api.tax_rates.update_async(identifier, {"active": False})
    assert shop.types()[-1] == "tax_rate.updated"
    assert [each.id for each in (await shop.api.tax_rates.list_async({"active": False})).data] == [identifier]
    await shop.api.subscriptions.update_async(subscription.id, {"default_tax_rates": [identifier]})
    for refused in ([identifier], ["txr_none"], [await rate(shop, each) for each in range(6)]):
        with pytest.raises(stripe.InvalidRequestError, match=r"tax.rate"):
            await shop.subscription(default_tax_rates=refused)
