import pytest

from services.stripe_double import StripeApiError
from tests.stripe_double.shop import Shop


async def test_checkout_creates_a_customer_and_pays_in_a_second_event(shop: Shop) -> None:
    subscription = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata={"plan": "beak"})
    (customer,) = shop.double.objects("customer")
    assert (customer["email"], customer["metadata"]) == ("ada@example.com", {})
    assert (subscription["status"], subscription["metadata"]) == ("active", {"plan": "beak"})
    statuses = [
        event["data"]["object"]["status"]
        for event in shop.double.objects("event")
        if event["type"].startswith("customer.subscription.")
    ]
    assert statuses == ["incomplete", "active"]


async def test_checkout_for_an_existing_customer_with_trial_and_coupon(shop: Shop) -> None:
    customer = await shop.customer(None)
    coupon = await shop.api.coupons.create_async({"percent_off": 50})
    subscription = shop.double.simulate.checkout(shop.price, customer=customer.id, trial_days=7, coupon=coupon.id)
    assert (subscription["status"], subscription["customer"]) == ("trialing", customer.id)
    assert len(subscription["discounts"]) == 1
    assert subscription["default_payment_method"] is not None


@pytest.mark.parametrize("payment_method", [None, "pm_card_chargeCustomerFail"])
async def test_an_abandoned_or_declined_checkout_stays_incomplete(shop: Shop, payment_method: str | None) -> None:
    subscription = shop.double.simulate.checkout(shop.price, email="a@example.com", payment_method=payment_method)
    assert subscription["status"] == "incomplete"


async def test_decline_makes_a_subscription_past_due_and_recover_pays_it(shop: Shop) -> None:
    simulate = shop.double.simulate
    subscription = simulate.checkout(shop.price, email="ada@example.com")
    simulate.decline(subscription["customer"])
    await shop.advance(days=31, hours=2)
    assert shop.double.object("subscription", subscription["id"])["status"] == "past_due"
    simulate.recover(subscription["customer"])
    assert shop.double.object("subscription", subscription["id"])["status"] == "active"


async def test_the_portal_cancels_at_period_end_by_date_or_now(shop: Shop) -> None:
    simulate = shop.double.simulate
    identifier = simulate.checkout(shop.price, email="ada@example.com")["id"]
    scheduled = simulate.cancel(identifier)
    assert (scheduled["cancel_at_period_end"], scheduled["status"]) == (True, "active")
    assert simulate.reactivate(identifier)["cancel_at"] is None
    by_date = simulate.cancel(identifier, at="date")
    assert (by_date["cancel_at_period_end"], by_date["cancel_at"]) == (False, scheduled["cancel_at"])
    assert simulate.cancel(identifier, at="now")["status"] == "canceled"


async def test_pausing_collection_and_pausing_the_subscription(shop: Shop) -> None:
    simulate = shop.double.simulate
    identifier = simulate.checkout(shop.price, email="ada@example.com")["id"]
    assert simulate.pause_collection(identifier)["status"] == "active"
    assert simulate.resume_collection(identifier)["pause_collection"] is None
    assert simulate.pause(identifier)["status"] == "paused"
    assert simulate.resume(identifier)["status"] == "active"


async def test_payments_are_refunded_and_disputed(shop: Shop) -> None:
    simulate = shop.double.simulate
    one, other = (simulate.checkout(shop.price, email="ada@example.com")["id"] for _ in range(2))
    assert simulate.refund(one, amount=300)["amount"] == 300
    assert simulate.dispute(other, reason="duplicate")["reason"] == "duplicate"
    with pytest.raises(StripeApiError):
        simulate.dispute(other)
    trial = simulate.checkout(shop.price, email="ada@example.com", trial_days=7)["id"]
    with pytest.raises(StripeApiError, match="No payment"):
        simulate.refund(trial)


async def test_a_refused_action_changes_nothing(shop: Shop) -> None:
    before = shop.types()
    with pytest.raises(StripeApiError):
        shop.double.simulate.checkout("price_none", email="ada@example.com")
    assert (shop.double.objects("customer"), shop.types()) == ([], before)


async def test_a_deleted_customer_leaves_a_tombstone(shop: Shop) -> None:
    subscription = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    deleted = shop.double.simulate.delete_customer(subscription["customer"])
    assert deleted == {"id": subscription["customer"], "object": "customer", "deleted": True}
