"""Subscriptions by call: made, read, changed, canceled, paused."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.stripe_double.shop import DAY, USES_STRIPE, Shop, open_shop

pytestmark = USES_STRIPE


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        shop.double.clock.freeze()
        yield shop


async def dearer(shop: Shop, amount: int = 3000, interval: str = "month") -> str:
    product = (await shop.api.products.create_async({"name": "Beak Pro"})).id
    params = {"currency": "usd", "unit_amount": amount, "recurring": {"interval": interval}, "product": product}
    return str((await shop.api.prices.create_async(params)).id)


class TestBeginning:
    async def test_a_paid_one_is_active_with_its_periods_on_the_items(self, shop: Shop) -> None:
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

    async def test_its_created_event_shows_it_paid(self, shop: Shop) -> None:
        await shop.subscription()
        assert [event["data"]["object"]["status"] for event in shop.events("customer.subscription.created")] == [
            "active"
        ]
        assert shop.events("customer.subscription.updated") == []

    async def test_a_trial_costs_a_paid_invoice_of_zero(self, shop: Shop) -> None:
        subscription = await shop.subscription(trial_period_days=14, expand=["latest_invoice"])
        item = subscription.items.data[0]
        assert (subscription.status, subscription.trial_start) == ("trialing", subscription.created)
        assert subscription.trial_end == item.current_period_end == subscription.billing_cycle_anchor
        assert subscription.trial_end - subscription.created == 14 * 86400
        assert (subscription.latest_invoice.status, subscription.latest_invoice.total) == ("paid", 0)
        assert shop.double.objects("payment_intent") == []

    async def test_a_trial_needs_no_payment_method(self, shop: Shop) -> None:
        customer = await shop.customer(None)
        assert (await shop.subscription(customer.id, trial_period_days=14)).status == "trialing"

    async def test_a_trial_longer_than_two_years_is_refused(self, shop: Shop) -> None:
        with pytest.raises(stripe.InvalidRequestError, match="730"):
            await shop.subscription(trial_period_days=731)

    async def test_without_a_payment_method_nothing_is_made(self, shop: Shop) -> None:
        customer = await shop.customer(None)
        before = len(shop.types())
        with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
            await shop.subscription(customer.id)
        assert shop.double.objects("subscription") == []
        assert len(shop.types()) == before

    async def test_a_declined_first_payment_leaves_it_incomplete(self, shop: Shop) -> None:
        customer = await shop.customer("pm_card_chargeCustomerFail")
        subscription = await shop.subscription(customer.id, expand=["latest_invoice"])
        assert (subscription.status, subscription.latest_invoice.status) == ("incomplete", "open")
        assert "invoice.payment_failed" in shop.types()

    async def test_error_if_incomplete_makes_nothing_of_a_declined_payment(self, shop: Shop) -> None:
        customer = await shop.customer("pm_card_chargeCustomerFail")
        before = len(shop.types())
        with pytest.raises(stripe.CardError) as refused:
            await shop.subscription(customer.id, payment_behavior="error_if_incomplete")
        assert (refused.value.http_status, refused.value.code) == (402, "card_declined")
        assert (shop.double.objects("subscription"), len(shop.types())) == ([], before)

    async def test_default_incomplete_waits_for_the_customer_to_pay(self, shop: Shop) -> None:
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

    async def test_an_invoice_that_is_sent_leaves_it_active_unpaid(self, shop: Shop) -> None:
        customer = await shop.customer(None)
        subscription = await shop.subscription(
            customer.id, collection_method="send_invoice", days_until_due=30, expand=["latest_invoice"]
        )
        assert (subscription.status, subscription.latest_invoice.status) == ("active", "draft")

    async def test_a_payment_method_must_be_the_customers(self, shop: Shop) -> None:
        other = await shop.customer()
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.subscription(default_payment_method=other.invoice_settings.default_payment_method)
        assert refused.value.param == "default_payment_method"

    @pytest.mark.parametrize(
        "items",
        [[], [{"price": "price_none"}], [{"price": "PRICE"}, {"price": "PRICE"}], [{"price": "ONCE"}]],
    )
    async def test_items_that_do_not_fit_are_refused(self, shop: Shop, items: list[dict[str, str]]) -> None:
        product = (await shop.api.products.create_async({"name": "Sticker"})).id
        once = await shop.api.prices.create_async({"currency": "usd", "unit_amount": 1, "product": product})
        named = {"PRICE": shop.price, "ONCE": once.id}
        with pytest.raises(stripe.InvalidRequestError):
            await shop.subscription(items=[{"price": named.get(item["price"], item["price"])} for item in items])


class TestListing:
    async def test_those_canceled_are_listed_only_when_asked_for(self, shop: Shop) -> None:
        live, over = await shop.subscription(), await shop.subscription()
        await shop.api.subscriptions.cancel_async(over.id)

        async def ids(**params: Any) -> list[str]:
            return [entry.id for entry in (await shop.api.subscriptions.list_async(params)).data]

        assert await ids() == [live.id]
        assert await ids(status="all") == [over.id, live.id]
        assert await ids(status="canceled") == await ids(status="ended") == [over.id]
        assert await ids(customer=live.customer, price=shop.price) == [live.id]
        assert await ids(price=await dearer(shop)) == []

    async def test_a_customers_own_list_leaves_out_what_is_over(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        customer = await shop.api.customers.retrieve_async(subscription.customer, {"expand": ["subscriptions"]})
        assert [entry.id for entry in customer.subscriptions.data] == [subscription.id]
        await shop.api.subscriptions.cancel_async(subscription.id)
        customer = await shop.api.customers.retrieve_async(subscription.customer, {"expand": ["subscriptions"]})
        assert customer.subscriptions.data == []


class TestCanceling:
    async def test_now_ends_it_and_gives_no_money_back(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        over = await shop.api.subscriptions.cancel_async(
            subscription.id, {"cancellation_details": {"comment": "bye", "feedback": "unused"}}
        )
        assert (over.status, over.ended_at) == ("canceled", over.canceled_at)
        assert over.cancellation_details.to_dict() == {
            "comment": "bye",
            "feedback": "unused",
            "feedback_option": None,
            "reason": "cancellation_requested",
        }
        assert shop.types()[-1] == "customer.subscription.deleted"
        assert shop.double.object("customer", over.customer)["balance"] == 0
        assert shop.double.objects("refund") == []

    async def test_proration_and_invoice_now_turn_unused_time_into_customer_balance(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        item = subscription.items.data[0]
        length = item.current_period_end - item.current_period_start
        await shop.advance(seconds=length // 2)
        over = await shop.api.subscriptions.cancel_async(
            subscription.id, {"prorate": True, "invoice_now": True, "expand": ["latest_invoice"]}
        )
        assert (over.latest_invoice.total, over.latest_invoice.amount_due) == (-500, 0)
        assert over.latest_invoice.lines.data[0].parent.subscription_item_details.proration is True
        assert shop.double.object("customer", over.customer)["balance"] == -500
        assert shop.double.objects("refund") == []

    async def test_the_balance_pays_the_next_invoice(self, shop: Shop) -> None:
        customer = await shop.customer(balance=-400)
        subscription = await shop.subscription(customer.id, expand=["latest_invoice"])
        assert subscription.latest_invoice.amount_paid == 600
        assert shop.double.object("customer", customer.id)["balance"] == 0

    async def test_proration_alone_waits_for_an_invoice(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        await shop.api.subscriptions.cancel_async(subscription.id, {"prorate": True})
        assert [entry["amount"] for entry in shop.double.objects("invoiceitem")] == [-1000]
        assert len(shop.double.objects("invoice")) == 1

    async def test_at_period_end_it_lives_on_until_then(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        end = subscription.items.data[0].current_period_end
        planned = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
        assert (planned.status, planned.cancel_at_period_end, planned.cancel_at) == ("active", True, end)
        assert planned.canceled_at == shop.double.clock.now()
        await shop.double.clock.advance(31 * DAY)
        over = await shop.read(subscription)
        assert (over.status, over.ended_at, over.canceled_at) == ("canceled", end, planned.canceled_at)
        assert len(shop.double.objects("invoice")) == 1

    async def test_a_planned_end_is_taken_back(self, shop: Shop) -> None:
        subscription = await shop.subscription(cancel_at_period_end=True)
        kept = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at_period_end": False})
        assert (kept.cancel_at_period_end, kept.cancel_at, kept.canceled_at) == (False, None, None)

    async def test_a_date_leaves_cancel_at_period_end_false(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        at = shop.double.clock.now() + 5 * 86400
        planned = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at": at})
        assert (planned.cancel_at, planned.cancel_at_period_end) == (at, False)
        ended = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at": "max_period_end"})
        assert ended.cancel_at == subscription.items.data[0].current_period_end
        kept = await shop.api.subscriptions.update_async(subscription.id, {"cancel_at": ""})
        assert kept.cancel_at is None

    async def test_an_incomplete_one_expires_with_its_invoice_and_payment(self, shop: Shop) -> None:
        customer = await shop.customer("pm_card_chargeCustomerFail")
        subscription = await shop.subscription(customer.id)
        over = await shop.api.subscriptions.cancel_async(subscription.id, {"expand": ["latest_invoice"]})
        assert (over.status, over.latest_invoice.status) == ("incomplete_expired", "void")
        assert [intent["status"] for intent in shop.double.objects("payment_intent")] == ["canceled"]
        assert "payment_intent.canceled" in shop.types()

    async def test_one_that_is_over_takes_notes_only(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        await shop.api.subscriptions.cancel_async(subscription.id)
        noted = await shop.api.subscriptions.update_async(subscription.id, {"metadata": {"why": "moved"}})
        assert noted.metadata.why == "moved"
        with pytest.raises(stripe.InvalidRequestError, match="can only update"):
            await shop.api.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})


class TestChanging:
    async def test_a_dearer_price_is_prorated_onto_the_next_invoice(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        item = subscription.items.data[0]
        await shop.advance(seconds=(item.current_period_end - item.current_period_start) // 2)
        changed = await shop.api.subscriptions.update_async(
            subscription.id, {"items": [{"id": item.id, "price": await dearer(shop)}]}
        )
        assert changed.items.data[0].current_period_end == item.current_period_end
        assert [entry["amount"] for entry in shop.double.objects("invoiceitem")] == [-500, 1500]
        await shop.advance(days=32)
        invoice = shop.double.object("invoice", (await shop.read(subscription)).latest_invoice)
        assert (invoice["total"], [line["amount"] for line in invoice["lines"]["data"]]) == (
            4000,
            [-500, 1500, 3000],
        )

    async def test_always_invoice_charges_the_difference_at_once(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        params = {
            "items": [{"id": subscription.items.data[0].id, "quantity": 3}],
            "proration_behavior": "always_invoice",
            "expand": ["latest_invoice"],
        }
        changed = await shop.api.subscriptions.update_async(subscription.id, params)
        assert (changed.items.data[0].quantity, changed.latest_invoice.amount_paid) == (3, 2000)

    async def test_another_interval_begins_a_new_period_at_once(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        await shop.advance(days=1)
        yearly = await dearer(shop, 10_000, "year")
        params = {"items": [{"id": subscription.items.data[0].id, "price": yearly}], "expand": ["latest_invoice"]}
        changed = await shop.api.subscriptions.update_async(subscription.id, params)
        assert changed.items.data[0].current_period_start == shop.double.clock.now()
        assert changed.latest_invoice.billing_reason == "subscription_update"
        assert 9_000 < changed.latest_invoice.amount_paid < 9_100

    async def test_items_are_added_and_removed(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        added = await shop.api.subscriptions.update_async(subscription.id, {"items": [{"price": await dearer(shop)}]})
        assert len(added.items.data) == 2
        item = added.items.data[1]
        assert (await shop.api.subscription_items.retrieve_async(item.id)).price.unit_amount == 3000
        removed = await shop.api.subscriptions.update_async(
            subscription.id, {"items": [{"id": added.items.data[0].id, "deleted": True}]}
        )
        assert [entry.id for entry in removed.items.data] == [item.id]
        with pytest.raises(stripe.InvalidRequestError, match="at least one"):
            await shop.api.subscriptions.update_async(subscription.id, {"items": [{"id": item.id, "deleted": True}]})

    async def test_a_trial_that_ends_now_is_charged_at_once(self, shop: Shop) -> None:
        subscription = await shop.subscription(trial_period_days=14)
        changed = await shop.api.subscriptions.update_async(
            subscription.id, {"trial_end": "now", "expand": ["latest_invoice"]}
        )
        assert (changed.status, changed.trial_end) == ("active", shop.double.clock.now())
        assert (changed.latest_invoice.status, changed.latest_invoice.amount_paid) == ("paid", 1000)
        assert len(shop.events("customer.subscription.updated")) == 1

    async def test_a_longer_trial_moves_the_anchor(self, shop: Shop) -> None:
        subscription = await shop.subscription(trial_period_days=14)
        later = subscription.trial_end + 7 * 86400
        changed = await shop.api.subscriptions.update_async(subscription.id, {"trial_end": later})
        assert (changed.trial_end, changed.billing_cycle_anchor) == (later, later)

    async def test_nothing_changed_is_no_event(self, shop: Shop) -> None:
        subscription = await shop.subscription(metadata={"a": "1"})
        before = len(shop.types())
        await shop.api.subscriptions.update_async(subscription.id, {"metadata": {"a": "1"}})
        assert shop.types(before) == []


class TestPausing:
    async def test_pause_collection_leaves_the_status_and_voids_invoices(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        paused = await shop.api.subscriptions.update_async(subscription.id, {"pause_collection": {"behavior": "void"}})
        assert (paused.status, paused.pause_collection.behavior) == ("active", "void")
        await shop.advance(days=32)
        renewed = await shop.read(subscription, "latest_invoice")
        assert (renewed.status, renewed.latest_invoice.status) == ("active", "void")
        resumed = await shop.api.subscriptions.update_async(subscription.id, {"pause_collection": ""})
        assert resumed.pause_collection is None

    @pytest.mark.parametrize(
        ("behavior", "status"), [("keep_as_draft", "draft"), ("mark_uncollectible", "uncollectible")]
    )
    async def test_paused_invoices_become_what_was_asked(self, shop: Shop, behavior: str, status: str) -> None:
        at = shop.double.clock.now() + 40 * 86400
        subscription = await shop.subscription()
        await shop.api.subscriptions.update_async(
            subscription.id, {"pause_collection": {"behavior": behavior, "resumes_at": at}}
        )
        await shop.advance(days=39)
        assert (await shop.read(subscription, "latest_invoice")).latest_invoice.status == status
        await shop.advance(days=1)
        assert (await shop.read(subscription)).pause_collection is None

    async def test_a_paused_one_makes_no_invoices_until_it_is_resumed(self, shop: Shop) -> None:
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


async def test_deleting_a_customer_ends_its_subscriptions(shop: Shop) -> None:
    subscription = await shop.subscription()
    gone = await shop.api.customers.delete_async(subscription.customer)
    assert gone.deleted is True
    assert (await shop.read(subscription)).status == "canceled"
    assert shop.types()[-1] == "customer.deleted"
    again = await shop.api.customers.retrieve_async(subscription.customer)
    assert again.to_dict() == {"id": subscription.customer, "object": "customer", "deleted": True}
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.customers.update_async(subscription.customer, {"name": "Ada"})
    with pytest.raises(stripe.InvalidRequestError):
        await shop.subscription(subscription.customer)
