from typing import Any

import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_pages_are_newest_first_without_gaps(shop: Shop) -> None:
    customer_ids = [(await shop.api.customers.create_async({"name": str(n)})).id for n in range(23)]
    first = await shop.api.customers.list_async()
    assert ([customer.id for customer in first.data], first.has_more) == (customer_ids[:-11:-1], True)
    paged = [customer.id async for customer in first.auto_paging_iter()]
    assert paged == customer_ids[::-1]


async def test_ending_before_returns_the_page_just_before_the_cursor(shop: Shop) -> None:
    customer_ids = [(await shop.api.customers.create_async({})).id for _ in range(6)]
    page = await shop.api.customers.list_async({"ending_before": customer_ids[0], "limit": 2})
    assert ([customer.id for customer in page.data], page.has_more) == ([customer_ids[2], customer_ids[1]], True)
    page = await shop.api.customers.list_async({"ending_before": customer_ids[3], "limit": 2})
    assert ([customer.id for customer in page.data], page.has_more) == ([customer_ids[5], customer_ids[4]], False)


async def test_the_created_filter_has_lower_and_upper_bounds(shop: Shop) -> None:
    shop.double.clock.freeze()
    times = []
    for _ in range(3):
        times.append((await shop.api.customers.create_async({})).created)
        await shop.advance(minutes=1)
    filtered = await shop.api.customers.list_async({"created": {"gte": times[1], "lt": times[2]}})
    assert [customer.created for customer in filtered.data] == [times[1]]


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": 101}, {"starting_after": "cus_none"}])
async def test_an_invalid_limit_or_cursor_is_refused(shop: Shop, params: Any) -> None:
    await shop.customer()
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.customers.list_async(params)


async def test_expand_replaces_ids_by_objects(shop: Shop) -> None:
    subscription = await shop.subscription(expand=["latest_invoice.payments", "customer"])
    assert subscription.customer.email == "ada@example.com"
    assert subscription.latest_invoice.payments.data[0].status == "paid"
    listed = await shop.api.subscriptions.list_async({"expand": ["data.latest_invoice"]})
    assert listed.data[0].latest_invoice.status == "paid"


async def test_an_expanded_deleted_customer_is_its_tombstone(shop: Shop) -> None:
    subscription = await shop.subscription()
    await shop.api.customers.delete_async(subscription.customer)
    again = await shop.read(subscription, "customer")
    assert again.customer.to_dict() == {"id": subscription.customer, "object": "customer", "deleted": True}


@pytest.mark.parametrize("path", ["status", "nonsense", "latest_invoice.lines.data.price.product"])
async def test_expanding_an_unexpandable_member_is_refused(shop: Shop, path: str) -> None:
    subscription = await shop.subscription()
    with pytest.raises(stripe.InvalidRequestError):
        await shop.read(subscription, path)


async def test_nested_lists_end_after_ten_entries(shop: Shop) -> None:
    items = [
        {
            "price_data": {
                "currency": "usd",
                "unit_amount": 100 + n,
                "recurring": {"interval": "month"},
                "product": (await shop.api.products.create_async({"name": f"Part {n}"})).id,
            }
        }
        for n in range(12)
    ]
    subscription = await shop.subscription(items=items)
    assert (len(subscription.items.data), subscription.items.has_more) == (10, True)
    listed = await shop.api.subscription_items.list_async({"subscription": subscription.id, "limit": 100})
    assert len(listed.data) == 12
    lines = await shop.api.invoices.line_items.list_async(subscription.latest_invoice, {"limit": 100})
    assert len(lines.data) == 12
