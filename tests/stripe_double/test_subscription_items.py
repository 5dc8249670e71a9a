import pytest
import stripe

from tests.stripe_double.shop import Shop


@pytest.mark.parametrize(
    "items",
    [[], [{"price": "price_none"}], [{"price": "PRICE"}, {"price": "PRICE"}], [{"price": "ONCE"}]],
)
async def test_incompatible_items_are_refused(shop: Shop, items: list[dict[str, str]]) -> None:
    product = (await shop.api.products.create_async({"name": "Sticker"})).id
    once = await shop.api.prices.create_async({"currency": "usd", "unit_amount": 1, "product": product})
    named = {"PRICE": shop.price, "ONCE": once.id}
    with pytest.raises(stripe.InvalidRequestError):
        await shop.subscription(items=[{"price": named.get(item["price"], item["price"])} for item in items])


async def test_items_are_added_and_removed(shop: Shop) -> None:
    subscription = await shop.subscription()
    added = await shop.api.subscriptions.update_async(
        subscription.id, {"items": [{"price": await shop.another_price()}]}
    )
    assert len(added.items.data) == 2
    item = added.items.data[1]
    assert (await shop.api.subscription_items.retrieve_async(item.id)).price.unit_amount == 3000
    removed = await shop.api.subscriptions.update_async(
        subscription.id, {"items": [{"id": added.items.data[0].id, "deleted": True}]}
    )
    assert [entry.id for entry in removed.items.data] == [item.id]
    with pytest.raises(stripe.InvalidRequestError, match="at least one"):
        await shop.api.subscriptions.update_async(subscription.id, {"items": [{"id": item.id, "deleted": True}]})


async def test_another_interval_starts_a_new_billing_cycle(shop: Shop) -> None:
    subscription = await shop.subscription()
    await shop.advance(days=1)
    yearly = await shop.another_price(10_000, "year")
    params = {"items": [{"id": subscription.items.data[0].id, "price": yearly}], "expand": ["latest_invoice"]}
    changed = await shop.api.subscriptions.update_async(subscription.id, params)
    assert changed.items.data[0].current_period_start == shop.double.clock.now()
    assert changed.latest_invoice.billing_reason == "subscription_update"
    assert 9_000 < changed.latest_invoice.amount_paid < 9_100
