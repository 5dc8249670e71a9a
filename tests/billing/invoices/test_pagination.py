"""The list of a user's invoices, page by page, from Stripe."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from services.billing.stripe_api.calls import Timeouts
from services.billing.subscriptions.portal import LISTS
from services.stripe_double import FaultKind
from shared.messages.billing.invoices import ListInvoices
from tests.billing.conftest import ADA, MONTH, Shop
from tests.service_harness import Refused


async def listed(shop: Shop, **fields: Any) -> dict[str, Any]:
    page: dict[str, Any] = await shop.harness.deliver(ListInvoices(user_id="user_ada", **fields))
    return page


async def all_ids(shop: Shop, limit: int) -> list[str]:
    """The invoices of all pages."""
    found, cursor = [], None
    while True:
        page = await listed(shop, limit=limit, cursor=cursor)
        assert len(page["invoices"]) <= limit
        found += [each["id"] for each in page["invoices"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def refusal(shop: Shop, **fields: Any) -> str:
    with pytest.raises(Refused) as refused:
        await listed(shop, **fields)
    return refused.value.code


async def renewed(shop: Shop, months: int) -> dict[str, Any]:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.deliver_all()
    for _ in range(months):
        await shop.double.clock.advance(MONTH)
    return made


async def test_an_invoice_has_its_number_amounts_and_links_of_the_gateway(shop: Shop) -> None:
    made = await renewed(shop, 0)
    (invoice,) = shop.double.objects("invoice")
    page = await listed(shop)
    assert page["next_cursor"] is None
    (entry,) = page["invoices"]
    assert entry.pop("date").startswith("20")
    assert entry == {
        "id": invoice["id"],
        "number": invoice["number"],
        "due_at": None,
        "status": "paid",
        "currency": "usd",
        "total": 500,
        "amount_due": 500,
        "amount_paid": 500,
        "stp_subscription_id": made["id"],
        "hosted_url": f"link:hosted:{invoice['id']}",
        "pdf_url": f"link:pdf:{invoice['id']}",
    }


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
async def test_pages_have_every_invoice_once_newest_first(limit: int, shop: Shop) -> None:
    await renewed(shop, 4)
    found = await all_ids(shop, limit)
    invoices = sorted(shop.double.objects("invoice"), key=lambda each: each["created"], reverse=True)
    assert found == [each["id"] for each in invoices]
    assert len(found) == 5


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_the_invoices_of_several_customers_are_merged(limit: int, shop: Shop) -> None:
    for number in range(3):
        shop.double.simulate.checkout(shop.price, email=f"ada{number}@example.com", metadata=ADA)
        await shop.double.clock.advance(timedelta(days=1))
    await shop.deliver_all()
    await shop.double.clock.advance(MONTH)
    found = await all_ids(shop, limit)
    times = {each["id"]: each["created"] for each in shop.double.objects("invoice")}
    assert sorted(found) == sorted(times)
    assert [times[each] for each in found] == sorted(times.values(), reverse=True)


async def test_a_person_who_never_bought_has_no_invoices_and_causes_no_call(shop: Shop) -> None:
    assert await listed(shop) == {"invoices": [], "next_cursor": None}
    assert shop.reads("/v1/invoices") == 0


def cursor(content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize("invalid", ["x", "%", cursor([]), cursor({"cus_other": "in_1"}), cursor({"cus_other": 1})])
async def test_a_cursor_of_no_page_is_invalid(invalid: str, shop: Shop) -> None:
    await renewed(shop, 0)
    assert await refusal(shop, cursor=invalid) == "invalid_cursor"


async def test_a_cursor_with_an_unknown_invoice_is_invalid(shop: Shop) -> None:
    made = await renewed(shop, 0)
    assert await refusal(shop, cursor=cursor({made["customer"]: "in_none"})) == "invalid_cursor"


async def test_lists_are_limited_for_each_user_and_unavailable_without_stripe(shop: Shop) -> None:
    await renewed(shop, 0)
    shop.harness.context.stripe.calls.timeouts = Timeouts(portal=0.2, retry_pause=0.01)
    shop.double.faults.add(FaultKind.SERVER_ERROR, times=3)
    assert await refusal(shop) == "unavailable"
    for _ in range(LISTS - 1):
        shop.harness.context.list_limit.open("user_ada", at=shop.harness.now)
    assert await refusal(shop) == "too_many_invoice_lists"


async def test_invoices_of_other_products_are_left_out(open_shop: Callable[..., Any]) -> None:
    shop: Shop = await open_shop(stripe_products="prod_other")
    await renewed(shop, 0)
    await shop.harness.database["provider_mappings"].insert_one(
        {
            "_id": "provmap_1",
            "userId": "user_ada",
            "providerType": "stripe",
            "providerValue": shop.double.objects("customer")[0]["id"],
            "createdAt": shop.harness.now,
            "updatedAt": shop.harness.now,
            "removedAt": None,
            "version": 1,
        }
    )
    assert await listed(shop) == {"invoices": [], "next_cursor": None}
