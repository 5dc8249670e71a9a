"""Invoice items: prorations, and the usage of metered prices."""

from typing import Any

import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_a_price_change_is_prorated_on_the_next_invoice(shop: Shop) -> None:
    subscription = await shop.subscription()
    item = subscription.items.data[0]
    await shop.advance(seconds=(item.current_period_end - item.current_period_start) // 2)
    changed = await shop.api.subscriptions.update_async(
        subscription.id, {"items": [{"id": item.id, "price": await shop.another_price()}]}
    )
    assert changed.items.data[0].current_period_end == item.current_period_end
    assert [entry["amount"] for entry in shop.double.objects("invoiceitem")] == [-500, 1500]
    await shop.advance(days=32)
    invoice = shop.double.object("invoice", (await shop.read(subscription)).latest_invoice)
    assert (invoice["total"], [line["amount"] for line in invoice["lines"]["data"]]) == (
        4000,
        [-500, 1500, 3000],
    )


async def test_a_proration_without_invoice_now_stays_pending(shop: Shop) -> None:
    subscription = await shop.subscription()
    await shop.api.subscriptions.cancel_async(subscription.id, {"prorate": True})
    assert [entry["amount"] for entry in shop.double.objects("invoiceitem")] == [-1000]
    assert len(shop.double.objects("invoice")) == 1


async def test_prorate_with_invoice_now_credits_unused_time_to_the_balance(shop: Shop) -> None:
    subscription = await shop.subscription()
    item = subscription.items.data[0]
    length = item.current_period_end - item.current_period_start
    await shop.advance(seconds=length // 2)
    canceled = await shop.api.subscriptions.cancel_async(
        subscription.id, {"prorate": True, "invoice_now": True, "expand": ["latest_invoice"]}
    )
    assert (canceled.latest_invoice.total, canceled.latest_invoice.amount_due) == (-500, 0)
    assert canceled.latest_invoice.lines.data[0].parent.subscription_item_details.proration is True
    assert shop.double.object("customer", canceled.customer)["balance"] == -500
    assert shop.double.objects("refund") == []


async def metered(shop: Shop, **params: Any) -> Any:
    """Create a monthly price of 0.025 USD for a call."""
    meter = await shop.api.billing.meters.create_async(
        {"display_name": "Calls", "event_name": "calls", "default_aggregation": {"formula": "sum"}}
    )
    recurring = {"interval": "month", "usage_type": "metered", "meter": meter.id}
    fields = {"currency": "usd", "unit_amount_decimal": "2.5", "product_data": {"name": "Calls"}, **params}
    return (await shop.api.prices.create_async({"recurring": recurring, **fields})).id


async def use(shop: Shop, customer: str, value: str) -> None:
    await shop.api.billing.meter_events.create_async(
        {"event_name": "calls", "payload": {"stripe_customer_id": customer, "value": value}}
    )


def latest(shop: Shop) -> tuple[int, list[tuple[int, str]]]:
    """The total of the latest invoice, and the amounts and usages of its lines."""
    invoice = shop.double.objects("invoice")[-1]
    return invoice["total"], [(line["amount"], line["quantity_decimal"]) for line in invoice["lines"]["data"]]


async def test_usage_of_a_period_is_billed_by_the_invoice_of_its_end(shop: Shop) -> None:
    subscription = await shop.subscription(items=[{"price": await metered(shop)}])
    assert "quantity" not in subscription.items.data[0]
    assert (subscription.status, latest(shop)) == ("active", (0, [(0, "0")]))
    await use(shop, subscription.customer, "100")
    await shop.advance(days=20)
    await use(shop, subscription.customer, "20.5")
    preview = await shop.api.invoices.create_preview_async({"subscription": subscription.id})
    assert preview.total == 301
    await shop.advance(days=12)
    assert latest(shop) == (301, [(301, "120.5")])
    assert shop.double.objects("invoice")[-1]["status"] == "paid"
    line, item = shop.double.objects("invoice")[-1]["lines"]["data"][0], subscription.items.data[0]
    assert line["period"] == {"start": item.current_period_start, "end": item.current_period_end}
    await shop.advance(days=30)
    assert latest(shop) == (0, [(0, "0")])


async def test_usage_is_billed_beside_a_quantity(shop: Shop) -> None:
    subscription = await shop.subscription(items=[{"price": shop.price, "quantity": 2}, {"price": await metered(shop)}])
    await use(shop, subscription.customer, "40")
    await shop.advance(days=32)
    assert latest(shop) == (2100, [(2000, "2"), (100, "40")])


async def test_usage_of_a_trial_is_free(shop: Shop) -> None:
    subscription = await shop.subscription(items=[{"price": await metered(shop)}], trial_period_days=10)
    await use(shop, subscription.customer, "40")
    await shop.advance(days=11)
    assert latest(shop) == (0, [(0, "0")])
    await use(shop, subscription.customer, "4")
    await shop.advance(days=31)
    assert latest(shop) == (10, [(10, "4")])


@pytest.mark.parametrize(
    ("end", "total"),
    [
        ({"cancel_at_period_end": True}, 100),
        ({"invoice_now": True}, 100),
        ({}, 0),
    ],
)
async def test_usage_is_billed_at_the_end_of_a_subscription(shop: Shop, end: dict[str, Any], total: int) -> None:
    subscription = await shop.subscription(items=[{"price": await metered(shop)}])
    await use(shop, subscription.customer, "40")
    await shop.advance(days=1)
    if "cancel_at_period_end" in end:
        await shop.api.subscriptions.update_async(subscription.id, end)
        await shop.advance(days=31)
    else:
        await shop.api.subscriptions.cancel_async(subscription.id, end)
    assert (await shop.read(subscription)).status == "canceled"
    assert latest(shop)[0] == total


@pytest.mark.parametrize(("behavior", "pending"), [("create_prorations", [100]), ("none", [])])
async def test_usage_of_a_replaced_price_is_billed_unless_prorations_are_off(
    shop: Shop, behavior: str, pending: list[int]
) -> None:
    subscription = await shop.subscription(items=[{"price": await metered(shop)}])
    await use(shop, subscription.customer, "40")
    await shop.advance(days=1)
    recurring = shop.double.object("price", subscription.items.data[0].price.id)["recurring"]
    dearer = {"currency": "usd", "unit_amount": 10, "product_data": {"name": "Calls"}}
    price = await shop.api.prices.create_async(
        {**dearer, "recurring": {name: recurring[name] for name in ("interval", "usage_type", "meter")}}
    )
    changed = {"items": [{"id": subscription.items.data[0].id, "price": price.id}], "proration_behavior": behavior}
    await shop.api.subscriptions.update_async(subscription.id, changed)
    assert [entry["amount"] for entry in shop.double.objects("invoiceitem")] == pending
    await use(shop, subscription.customer, "3")
    await shop.advance(days=31)
    assert latest(shop)[0] == sum(pending) + 30


async def test_a_metered_price_takes_no_quantity(shop: Shop) -> None:
    price = await metered(shop)
    with pytest.raises(stripe.InvalidRequestError, match="cannot set the quantity for metered plans") as refused:
        await shop.subscription(items=[{"price": price, "quantity": 1}])
    assert refused.value.param == "items[0][quantity]"
    subscription = await shop.subscription(items=[{"price": price}])
    schedule = await shop.api.subscription_schedules.create_async({"from_subscription": subscription.id})
    assert "quantity" not in schedule.phases[0]["items"][0]
