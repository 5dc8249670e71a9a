"""Pages of the list of payments."""

from __future__ import annotations

from typing import Any

import pytest

from shared.messages.billing.payments import (
    ListPayments,
)
from tests.billing.conftest import ADA, Shop
from tests.service_harness import Refused


async def listed(shop: Shop, **query: Any) -> list[dict[str, Any]]:
    page = await shop.harness.deliver(ListPayments(**query))
    payments: list[dict[str, Any]] = page["payments"]
    return payments


async def test_pages_are_newest_first_and_complete(shop: Shop) -> None:
    made = []
    for amount in range(1, 8):
        made.append(shop.double.simulate.pay_once(amount, metadata=ADA)["id"])
        if amount % 3 == 0:
            await shop.next_second()
    await shop.deliver_all()
    seen: list[str] = []
    cursor = None
    while cursor is not None or not seen:
        page = await shop.harness.deliver(ListPayments(limit=2, cursor=cursor))
        seen += [each["stp_payment_intent_id"] for each in page["payments"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == sorted(made)
    listing = await listed(shop)
    assert [each["stp_payment_intent_id"] for each in listing] == seen
    times = [each["created_at"] for each in listing]
    assert times == sorted(times, reverse=True)


async def test_payments_are_filtered_by_user_and_status(shop: Shop) -> None:
    made = await shop.declined_renewal()
    shop.double.simulate.pay_once(100, metadata={"user_id": "user_bob"})
    await shop.deliver_all()
    assert len(await listed(shop)) == 3
    assert {each["user_id"] for each in await listed(shop, user_id="user_ada")} == {"user_ada"}
    (declined,) = await listed(shop, user_id="user_ada", status="requires_payment_method")
    assert (declined["stp_subscription_id"], declined["decline_code"]) == (made["id"], "generic_decline")
    assert await listed(shop, user_id="user_eve") == []


async def test_payments_before_the_user_was_known_are_the_users_too(shop: Shop) -> None:
    customer = await shop.post("/v1/customers", email="ada@example.com")
    early = shop.double.simulate.pay_once(100, customer=customer["id"])
    await shop.deliver_all()
    shop.double.simulate.checkout(shop.price, customer=customer["id"], metadata=ADA)
    await shop.deliver_all()
    (found,) = [each for each in await listed(shop, user_id="user_ada") if each["stp_payment_intent_id"] == early["id"]]
    assert found["user_id"] == "user_ada"


@pytest.mark.parametrize("cursor", ["x", "é", "AAAA", "OTk5OTk5OTk5OTk5OTk5OTk5OS54", "LnA", "$ne", "bmFuLng"])
async def test_an_invalid_cursor_is_refused(shop: Shop, cursor: str) -> None:
    with pytest.raises(Refused) as refused:
        await shop.harness.deliver(ListPayments(cursor=cursor))
    assert refused.value.code == "invalid_cursor"


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 501}, {"user_id": ""}, {"cursor": ""}])
def test_a_query_out_of_bounds_is_invalid(query: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        ListPayments(**query)
