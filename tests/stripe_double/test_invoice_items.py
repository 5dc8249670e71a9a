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
