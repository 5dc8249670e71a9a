import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_a_trial_begins_with_a_paid_invoice_of_zero(shop: Shop) -> None:
    subscription = await shop.subscription(trial_period_days=14, expand=["latest_invoice"])
    item = subscription.items.data[0]
    assert (subscription.status, subscription.trial_start) == ("trialing", subscription.created)
    assert subscription.trial_end == item.current_period_end == subscription.billing_cycle_anchor
    assert subscription.trial_end - subscription.created == 14 * 86400
    assert (subscription.latest_invoice.status, subscription.latest_invoice.total) == ("paid", 0)
    assert shop.double.objects("payment_intent") == []


async def test_a_trial_needs_no_payment_method(shop: Shop) -> None:
    customer = await shop.customer(None)
    assert (await shop.subscription(customer.id, trial_period_days=14)).status == "trialing"


async def test_a_trial_longer_than_730_days_is_refused(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="730"):
        await shop.subscription(trial_period_days=731)


async def test_ending_a_trial_now_charges_at_once(shop: Shop) -> None:
    subscription = await shop.subscription(trial_period_days=14)
    changed = await shop.api.subscriptions.update_async(
        subscription.id, {"trial_end": "now", "expand": ["latest_invoice"]}
    )
    assert (changed.status, changed.trial_end) == ("active", shop.double.clock.now())
    assert (changed.latest_invoice.status, changed.latest_invoice.amount_paid) == ("paid", 1000)
    assert len(shop.events("customer.subscription.updated")) == 1


async def test_extending_a_trial_moves_the_billing_cycle_anchor(shop: Shop) -> None:
    subscription = await shop.subscription(trial_period_days=14)
    later = subscription.trial_end + 7 * 86400
    changed = await shop.api.subscriptions.update_async(subscription.id, {"trial_end": later})
    assert (changed.trial_end, changed.billing_cycle_anchor) == (later, later)


async def test_the_invoice_after_a_trial_is_a_draft_for_an_hour(shop: Shop) -> None:
    subscription = await shop.subscription(trial_period_days=14)
    await shop.advance(days=14)
    active = await shop.read(subscription, "latest_invoice")
    assert (active.status, active.latest_invoice.status) == ("active", "draft")
    assert active.items.data[0].current_period_start == subscription.trial_end
    assert shop.double.objects("charge") == []
    await shop.advance(hours=1)
    paid = await shop.read(subscription, "latest_invoice")
    assert (paid.latest_invoice.status, paid.latest_invoice.amount_paid) == ("paid", 1000)


async def test_trial_will_end_is_emitted_once_three_days_before(shop: Shop) -> None:
    subscription = await shop.subscription(trial_period_days=14)
    await shop.advance(days=11)
    assert len(shop.events("customer.subscription.trial_will_end")) == 1
    await shop.advance(days=10)
    (event,) = shop.events("customer.subscription.trial_will_end")
    assert event["created"] == subscription.trial_end - 3 * 86400
    assert event["data"]["object"]["status"] == "trialing"


async def test_trial_will_end_is_emitted_at_once_for_a_short_trial(shop: Shop) -> None:
    await shop.subscription(trial_period_days=2)
    assert shop.types()[-1] == "customer.subscription.trial_will_end"
    await shop.advance(days=3)
    assert len(shop.events("customer.subscription.trial_will_end")) == 1


async def test_trial_will_end_is_emitted_again_for_a_new_end(shop: Shop) -> None:
    subscription = await shop.subscription(trial_period_days=2)
    later = subscription.trial_end + 10 * 86400
    await shop.api.subscriptions.update_async(subscription.id, {"trial_end": later})
    await shop.advance(days=9)
    assert len(shop.events("customer.subscription.trial_will_end")) == 2


@pytest.mark.parametrize(
    ("behavior", "status", "last"),
    [
        ("cancel", "canceled", "customer.subscription.deleted"),
        ("pause", "paused", "customer.subscription.updated"),
        ("create_invoice", "past_due", "customer.subscription.updated"),
    ],
)
async def test_a_trial_without_a_payment_method_ends_by_trial_settings(
    shop: Shop, behavior: str, status: str, last: str
) -> None:
    customer = await shop.customer(None)
    subscription = await shop.subscription(
        customer.id,
        trial_period_days=14,
        trial_settings={"end_behavior": {"missing_payment_method": behavior}},
    )
    await shop.advance(days=14, hours=1)
    assert (await shop.read(subscription)).status == status
    assert shop.types()[-1] == last


async def test_a_cancellation_at_the_trial_end_makes_no_invoice(shop: Shop) -> None:
    subscription = await shop.subscription(trial_period_days=14, cancel_at_period_end=True)
    await shop.advance(days=20)
    over = await shop.read(subscription)
    assert (over.status, over.ended_at) == ("canceled", subscription.trial_end)
    assert len(shop.double.objects("invoice")) == 1
