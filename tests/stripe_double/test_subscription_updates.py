from typing import Any

import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_canceling_now_refunds_nothing(shop: Shop) -> None:
    subscription = await shop.subscription()
    canceled = await shop.api.subscriptions.cancel_async(
        subscription.id, {"cancellation_details": {"comment": "bye", "feedback": "unused"}}
    )
    assert (canceled.status, canceled.ended_at) == ("canceled", canceled.canceled_at)
    assert canceled.cancellation_details.to_dict() == {
        "comment": "bye",
        "feedback": "unused",
        "feedback_option": None,
        "reason": "cancellation_requested",
    }
    assert shop.types()[-1] == "customer.subscription.deleted"
    assert shop.double.object("customer", canceled.customer)["balance"] == 0
    assert shop.double.objects("refund") == []


async def test_cancel_at_period_end_takes_effect_at_the_period_end(shop: Shop) -> None:
    subscription = await shop.subscription()
    end = subscription.items.data[0].current_period_end
    scheduled = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    assert (scheduled.status, scheduled.cancel_at_period_end, scheduled.cancel_at) == ("active", True, end)
    assert scheduled.canceled_at == shop.double.clock.now()
    await shop.advance(days=31)
    canceled = await shop.read(subscription)
    assert (canceled.status, canceled.ended_at, canceled.canceled_at) == ("canceled", end, scheduled.canceled_at)
    assert len(shop.double.objects("invoice")) == 1


async def test_a_scheduled_cancellation_can_be_withdrawn(shop: Shop) -> None:
    subscription = await shop.subscription(cancel_at_period_end=True)
    withdrawn = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at_period_end": False})
    assert (withdrawn.cancel_at_period_end, withdrawn.cancel_at, withdrawn.canceled_at) == (False, None, None)


async def test_cancel_at_leaves_cancel_at_period_end_false(shop: Shop) -> None:
    subscription = await shop.subscription()
    at = shop.double.clock.now() + 5 * 86400
    scheduled = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at": at})
    assert (scheduled.cancel_at, scheduled.cancel_at_period_end) == (at, False)
    ended = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at": "max_period_end"})
    assert ended.cancel_at == subscription.items.data[0].current_period_end
    withdrawn = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at": ""})
    assert withdrawn.cancel_at is None


async def test_canceling_an_incomplete_subscription_voids_its_invoice(shop: Shop) -> None:
    customer = await shop.customer("pm_card_chargeCustomerFail")
    subscription = await shop.subscription(customer.id)
    canceled = await shop.api.subscriptions.cancel_async(subscription.id, {"expand": ["latest_invoice"]})
    assert (canceled.status, canceled.latest_invoice.status) == ("incomplete_expired", "void")
    assert [intent["status"] for intent in shop.double.objects("payment_intent")] == ["canceled"]
    assert "payment_intent.canceled" in shop.types()


async def test_an_ended_subscription_accepts_only_metadata(shop: Shop) -> None:
    subscription = await shop.subscription()
    await shop.api.subscriptions.cancel_async(subscription.id)
    updated = await shop.api.subscriptions.update_async(subscription.id, {"metadata": {"why": "moved"}})
    assert updated.metadata.why == "moved"
    with pytest.raises(stripe.InvalidRequestError, match="can only update"):
        await shop.api.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})


async def test_always_invoice_charges_the_difference_at_once(shop: Shop) -> None:
    subscription = await shop.subscription()
    params = {
        "items": [{"id": subscription.items.data[0].id, "quantity": 3}],
        "proration_behavior": "always_invoice",
        "expand": ["latest_invoice"],
    }
    changed = await shop.api.subscriptions.update_async(subscription.id, params)
    assert (changed.items.data[0].quantity, changed.latest_invoice.amount_paid) == (3, 2000)


async def test_an_update_without_a_change_emits_no_event(shop: Shop) -> None:
    subscription = await shop.subscription(metadata={"a": "1"})
    before = len(shop.types())
    await shop.api.subscriptions.update_async(subscription.id, {"metadata": {"a": "1"}})
    assert shop.types(before) == []


async def test_pause_collection_voids_invoices_and_keeps_the_status(shop: Shop) -> None:
    subscription = await shop.subscription()
    paused = await shop.api.subscriptions.update_async(subscription.id, {"pause_collection": {"behavior": "void"}})
    assert (paused.status, paused.pause_collection.behavior) == ("active", "void")
    await shop.advance(days=32)
    renewed = await shop.read(subscription, "latest_invoice")
    assert (renewed.status, renewed.latest_invoice.status) == ("active", "void")
    resumed = await shop.api.subscriptions.update_async(subscription.id, {"pause_collection": ""})
    assert resumed.pause_collection is None


@pytest.mark.parametrize(("behavior", "status"), [("keep_as_draft", "draft"), ("mark_uncollectible", "uncollectible")])
async def test_pause_collection_treats_invoices_by_its_behavior(shop: Shop, behavior: str, status: str) -> None:
    at = shop.double.clock.now() + 40 * 86400
    subscription = await shop.subscription()
    await shop.api.subscriptions.update_async(
        subscription.id, {"pause_collection": {"behavior": behavior, "resumes_at": at}}
    )
    await shop.advance(days=39)
    assert (await shop.read(subscription, "latest_invoice")).latest_invoice.status == status
    await shop.advance(days=1)
    assert (await shop.read(subscription)).pause_collection is None


async def test_a_paused_subscription_makes_no_invoices_until_resumed(shop: Shop) -> None:
    subscription = await shop.subscription()
    paused = await shop.api.subscriptions.pause_async(subscription.id)
    assert (paused.status, paused.status_details.paused.subscription.type) == ("paused", "pause_requested")
    await shop.advance(days=90)
    assert len(shop.double.objects("invoice")) == 1
    resumed = await shop.api.subscriptions.resume_async(subscription.id)
    assert (resumed.status, resumed.billing_cycle_anchor) == ("active", shop.double.clock.now())
    assert {"customer.subscription.paused", "customer.subscription.resumed"} <= set(shop.types())
    with pytest.raises(stripe.InvalidRequestError, match="only resume paused"):
        await shop.api.subscriptions.resume_async(subscription.id)


@pytest.mark.parametrize("change", [{"cancel_at_period_end": True}, {"cancel_at": ""}])
async def test_a_schedule_manages_the_cancellation(change: dict[str, Any], shop: Shop) -> None:
    subscription = await shop.subscription()
    await shop.api.subscription_schedules.create_async({"from_subscription": subscription.id})
    with pytest.raises(stripe.InvalidRequestError, match="managed by the subscription schedule"):
        await shop.api.subscriptions.update_async(subscription.id, change)
