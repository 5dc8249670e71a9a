from typing import Any

import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_a_paid_subscription_is_active_with_periods_on_its_items(shop: Shop) -> None:
    subscription = await shop.subscription(metadata={"user_id": "u1"}, expand=["latest_invoice"])
    item = subscription.items.data[0]
    assert subscription.status == "active"
    assert item.current_period_start == subscription.created == subscription.billing_cycle_anchor
    assert not hasattr(subscription, "current_period_end")
    assert subscription.latest_invoice.billing_reason == "subscription_create"
    assert (subscription.latest_invoice.status, subscription.latest_invoice.amount_paid) == ("paid", 1000)
    assert subscription.latest_invoice.parent.subscription_details.subscription == subscription.id
    assert subscription.latest_invoice.parent.subscription_details.metadata.user_id == "u1"
    assert not hasattr(subscription.latest_invoice, "payment_intent")


async def test_the_created_event_has_the_status_after_payment(shop: Shop) -> None:
    await shop.subscription()
    assert [event["data"]["object"]["status"] for event in shop.events("customer.subscription.created")] == ["active"]
    assert shop.events("customer.subscription.updated") == []


async def test_without_a_payment_method_nothing_is_created(shop: Shop) -> None:
    customer = await shop.customer(None)
    before = len(shop.types())
    with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
        await shop.subscription(customer.id)
    assert shop.double.objects("subscription") == []
    assert len(shop.types()) == before


async def test_a_declined_first_payment_leaves_the_subscription_incomplete(shop: Shop) -> None:
    customer = await shop.customer("pm_card_chargeCustomerFail")
    subscription = await shop.subscription(customer.id, expand=["latest_invoice"])
    assert (subscription.status, subscription.latest_invoice.status) == ("incomplete", "open")
    assert "invoice.payment_failed" in shop.types()


async def test_error_if_incomplete_creates_nothing_after_a_declined_payment(shop: Shop) -> None:
    customer = await shop.customer("pm_card_chargeCustomerFail")
    before = len(shop.types())
    with pytest.raises(stripe.CardError) as caught:
        await shop.subscription(customer.id, payment_behavior="error_if_incomplete")
    assert (caught.value.http_status, caught.value.code) == (402, "card_declined")
    assert (shop.double.objects("subscription"), len(shop.types())) == ([], before)


async def test_default_incomplete_is_activated_by_the_customers_payment(shop: Shop) -> None:
    customer = await shop.customer(None)
    subscription = await shop.subscription(
        customer.id, payment_behavior="default_incomplete", expand=["latest_invoice.payments"]
    )
    assert subscription.status == "incomplete"
    intent = subscription.latest_invoice.payments.data[0].payment.payment_intent
    await shop.api.payment_intents.confirm_async(intent, {"payment_method": "pm_card_visa"})
    assert (await shop.read(subscription)).status == "active"
    updated = shop.events("customer.subscription.updated")[-1]
    assert updated["data"]["previous_attributes"] == {"status": "incomplete"}


async def test_send_invoice_activates_the_subscription_unpaid(shop: Shop) -> None:
    customer = await shop.customer(None)
    subscription = await shop.subscription(
        customer.id, collection_method="send_invoice", days_until_due=30, expand=["latest_invoice"]
    )
    assert (subscription.status, subscription.latest_invoice.status) == ("active", "draft")


async def test_the_default_payment_method_must_be_the_customers(shop: Shop) -> None:
    other = await shop.customer()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.subscription(default_payment_method=other.invoice_settings.default_payment_method)
    assert caught.value.param == "default_payment_method"


async def test_the_list_excludes_canceled_subscriptions_by_default(shop: Shop) -> None:
    active, canceled = await shop.subscription(), await shop.subscription()
    await shop.api.subscriptions.cancel_async(canceled.id)

    async def ids(**params: Any) -> list[str]:
        return [entry.id for entry in (await shop.api.subscriptions.list_async(params)).data]

    assert await ids() == [active.id]
    assert await ids(status="all") == [canceled.id, active.id]
    assert await ids(status="canceled") == await ids(status="ended") == [canceled.id]
    assert await ids(customer=active.customer, price=shop.price) == [active.id]
    assert await ids(price=await shop.another_price()) == []
