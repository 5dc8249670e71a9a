"""Checkout Sessions of the double: creation, the ways they end, and their page."""

from typing import Any

import httpx
import pytest
import stripe

from tests.stripe_double.shop import Shop

URLS = {"success_url": "https://app.example/paid?id={CHECKOUT_SESSION_ID}", "cancel_url": "https://app.example/no"}


async def session_of(shop: Shop, **params: Any) -> Any:
    """Create a session of the monthly price, some parameters changed."""
    items = [{"price": shop.price, "quantity": 1}]
    return await shop.api.checkout.sessions.create_async(
        {"mode": "subscription", "line_items": items, **URLS, **params}
    )


async def price_of_book(shop: Shop, **params: Any) -> str:
    """Create a price of another product, one-time unless it is made recurring; return its ID."""
    product = (await shop.api.products.create_async({"name": "Book"})).id
    price = {"currency": "usd", "unit_amount": 700, "product": product, **params}
    return str((await shop.api.prices.create_async(price)).id)


async def test_session_is_open_for_a_day_and_has_a_page(shop: Shop) -> None:
    customer = await shop.customer(None)
    made = await session_of(
        shop,
        customer=customer.id,
        client_reference_id="user_1",
        metadata={"user_id": "user_1"},
        allow_promotion_codes=True,
        automatic_tax={"enabled": True},
        customer_update={"address": "auto"},
        locale="de",
        expand=["line_items"],
    )
    assert (made.status, made.payment_status, made.mode) == ("open", "unpaid", "subscription")
    assert made.expires_at == made.created + 24 * 60 * 60
    assert made.url == f"{shop.double.url}/c/pay/{made.id}"
    assert (made.client_reference_id, made.metadata["user_id"], made.customer) == ("user_1", "user_1", customer.id)
    assert (made.amount_total, made.currency, made.locale) == (1000, "usd", "de")
    assert made.line_items.data[0].price.id == shop.price
    listed = await shop.api.checkout.sessions.list_async({"customer": customer.id, "status": "open"})
    assert [each.id for each in listed.data] == [made.id]
    items = await shop.api.checkout.sessions.line_items.list_async(made.id)
    assert [(each.quantity, each.amount_total) for each in items.data] == [(1, 1000)]


@pytest.mark.parametrize(
    ("params", "message", "param"),
    [
        ({"mode": "payment"}, "passed a recurring price", "line_items"),
        ({"line_items": [{"price": "price_none", "quantity": 1}]}, "No such price", "line_items[0][price]"),
        ({"line_items": []}, "line_items", "line_items"),
        ({"line_items": [{"price": "PRICE"}]}, "quantity", "line_items[0][quantity]"),
        ({"line_items": [{"price": "ONCE", "quantity": 1}]}, "at least one recurring price", "line_items"),
        ({"line_items": [{"price": "PRICE", "quantity": 1}, {"price": "YEAR", "quantity": 1}]}, "intervals", None),
        ({"line_items": [{"price": "PRICE", "quantity": 1}, {"price": "EURO", "quantity": 1}]}, "currency", None),
        ({"line_items": [{"price": "OLD", "quantity": 1}]}, "inactive", "line_items[0][price]"),
        ({"customer": "cus_none"}, "No such customer", "customer"),
        ({"customer_update": {"address": "auto"}}, "can only be used with", "customer_update"),
        ({"success_url": "app.example"}, "explicit scheme", "success_url"),
        ({"expires_at": 1}, "at least 30 minutes", "expires_at"),
        ({"payment_intent_data": {"metadata": {"a": "b"}}}, "can not pass", "payment_intent_data"),
        ({"unheard": "of"}, "unknown parameter", "unheard"),
        ({"CUSTOMER": True, "automatic_tax": {"enabled": True}}, "valid address", "automatic_tax"),
    ],
)
async def test_invalid_session_is_refused(shop: Shop, params: dict[str, Any], message: str, param: str | None) -> None:
    named = {"PRICE": shop.price}
    others: dict[str, dict[str, Any]] = {
        "ONCE": {},
        "YEAR": {"recurring": {"interval": "year"}},
        "EURO": {"currency": "eur", "recurring": {"interval": "month"}},
        "OLD": {"active": False, "recurring": {"interval": "month"}},
    }
    for name in filter(str(params).__contains__, others):
        named[name] = await price_of_book(shop, **others[name])
    if params.pop("CUSTOMER", False):
        params = {**params, "customer": (await shop.customer(None)).id}
    if "line_items" in params:
        items = [{**item, "price": named.get(item["price"], item["price"])} for item in params["line_items"]]
        params = {**params, "line_items": items}
    with pytest.raises(stripe.InvalidRequestError, match=message) as refused:
        await session_of(shop, **params)
    if param is not None:
        assert refused.value.param == param
    assert shop.double.objects("checkout.session") == []


async def test_paid_session_creates_the_subscription_it_describes(shop: Shop) -> None:
    customer = await shop.customer(None)
    made = await session_of(shop, customer=customer.id, subscription_data={"metadata": {"user_id": "user_1"}})
    assert shop.double.objects("subscription") == []
    paid = shop.double.simulate.pay_checkout(made.id)
    (subscription,) = shop.double.objects("subscription")
    assert (subscription["status"], subscription["metadata"]) == ("active", {"user_id": "user_1"})
    assert subscription["default_payment_method"] is not None
    assert (paid["status"], paid["payment_status"], paid["url"]) == ("complete", "paid", None)
    assert (paid["subscription"], paid["invoice"]) == (subscription["id"], subscription["latest_invoice"])
    assert shop.types()[-1] == "checkout.session.completed"
    with pytest.raises(stripe.InvalidRequestError, match="status of complete"):
        await shop.api.checkout.sessions.expire_async(made.id)


async def test_trial_begins_with_a_card_and_without_a_payment(shop: Shop) -> None:
    customer = await shop.customer(None)
    made = await session_of(shop, customer=customer.id, subscription_data={"trial_period_days": 7})
    assert made.amount_total == 0
    paid = shop.double.simulate.pay_checkout(made.id)
    (subscription,) = shop.double.objects("subscription")
    assert (subscription["status"], paid["payment_status"]) == ("trialing", "no_payment_required")
    await shop.advance(days=8)
    assert shop.double.object("subscription", subscription["id"])["status"] == "active"


async def test_one_time_session_makes_a_payment_with_its_metadata(shop: Shop) -> None:
    items = [{"price": await price_of_book(shop), "quantity": 2}]
    data = {"metadata": {"user_id": "user_1"}}
    made = await session_of(
        shop, mode="payment", line_items=items, payment_intent_data=data, customer_email="a@b.example"
    )
    paid = shop.double.simulate.pay_checkout(made.id)
    (intent,) = shop.double.objects("payment_intent")
    assert (intent["amount"], intent["status"], intent["metadata"]) == (1400, "succeeded", {"user_id": "user_1"})
    assert (paid["payment_intent"], paid["customer"]) == (intent["id"], intent["customer"])
    assert paid["customer_details"]["email"] == "a@b.example"


@pytest.mark.parametrize(
    ("method", "event", "payment_status"),
    [
        ("pm_usBankAccount_success", "checkout.session.async_payment_succeeded", "paid"),
        ("pm_usBankAccount_insufficientFunds", "checkout.session.async_payment_failed", "unpaid"),
    ],
)
async def test_bank_debit_settles_days_later(shop: Shop, method: str, event: str, payment_status: str) -> None:
    items = [{"price": await price_of_book(shop), "quantity": 1}]
    made = await session_of(shop, mode="payment", line_items=items, customer=(await shop.customer(None)).id)
    assert shop.double.simulate.pay_checkout(made.id, payment_method=method)["payment_status"] == "unpaid"
    await shop.advance(days=5)
    (found,) = shop.events(event)
    assert found["data"]["object"]["payment_status"] == payment_status


async def test_session_expires_by_request_or_after_a_day(shop: Shop) -> None:
    first, second = await session_of(shop), await session_of(shop)
    expired = await shop.api.checkout.sessions.expire_async(first.id)
    assert (expired.status, expired.url) == ("expired", None)
    await shop.advance(days=1, seconds=1)
    assert shop.double.object("checkout.session", second.id)["status"] == "expired"
    assert len(shop.events("checkout.session.expired")) == 2


async def test_page_takes_test_cards(shop: Shop) -> None:
    made = await session_of(shop, customer=(await shop.customer(None)).id)
    async with httpx.AsyncClient() as browser:
        page = await browser.get(made.url)
        assert page.status_code == 200
        assert "Beak" in page.text
        assert "10.00 USD" in page.text
        for card, text in (
            ("1234", "card number is invalid"),
            ("4000 0000 0000 0002", "Your card was declined."),
            ("4000 0027 6000 3184", "Complete authentication"),
        ):
            answer = await browser.post(made.url, data={"card": card})
            assert text in answer.text
        assert shop.double.objects("subscription") == []
        paid = await browser.post(made.url, data={"card": "4000002760003184", "authentication": "complete"})
        assert (paid.status_code, paid.headers["location"]) == (303, f"https://app.example/paid?id={made.id}")
        assert "This checkout is complete" in (await browser.get(made.url)).text
        assert (await browser.get(shop.double.url + "/c/pay/cs_none")).status_code == 404
    assert shop.double.objects("subscription")[0]["status"] == "active"


async def test_promotion_code_lowers_the_first_payment(shop: Shop) -> None:
    coupon = await shop.api.coupons.create_async({"percent_off": 50, "duration": "once"})
    await shop.api.promotion_codes.create_async({"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "HALF"})
    made = await session_of(shop, customer=(await shop.customer(None)).id, allow_promotion_codes=True)
    paid = shop.double.simulate.pay_checkout(made.id, promotion_code="HALF")
    assert (paid["amount_total"], paid["total_details"]["amount_discount"]) == (500, 500)


async def test_portal_session_carries_its_flow(shop: Shop) -> None:
    subscription = await shop.subscription()
    other = await shop.another_price()
    item = subscription["items"].data[0].id
    confirm = {"subscription": subscription.id, "items": [{"id": item, "price": other, "quantity": 3}]}
    flow = {"type": "subscription_update_confirm", "subscription_update_confirm": confirm}
    made = await shop.api.billing_portal.sessions.create_async({"customer": subscription.customer, "flow_data": flow})
    assert made.flow.type == "subscription_update_confirm"
    assert made.flow.subscription_update_confirm["items"][0].price == other
    confirm["items"] = [{"id": item, "price": shop.price, "quantity": 1}]
    with pytest.raises(stripe.InvalidRequestError, match="no changes"):
        await shop.api.billing_portal.sessions.create_async({"customer": subscription.customer, "flow_data": flow})
    with pytest.raises(stripe.InvalidRequestError, match="portal of this customer"):
        await shop.api.billing_portal.sessions.create_async({"customer": (await shop.customer()).id, "flow_data": flow})
