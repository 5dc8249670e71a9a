"""What time does to a subscription."""

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from services.stripe_double import Settings
from tests.stripe_double.shop import USES_STRIPE, Shop, open_shop, until

pytestmark = USES_STRIPE


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        shop.double.clock.freeze()
        yield shop


class TestTrialEnd:
    async def test_the_invoice_is_a_draft_for_an_hour_while_the_status_is_active(self, shop: Shop) -> None:
        subscription = await shop.subscription(trial_period_days=14)
        await shop.advance(days=14)
        active = await shop.read(subscription, "latest_invoice")
        assert (active.status, active.latest_invoice.status) == ("active", "draft")
        assert active.items.data[0].current_period_start == subscription.trial_end
        assert shop.double.objects("charge") == []
        await shop.advance(hours=1)
        paid = await shop.read(subscription, "latest_invoice")
        assert (paid.latest_invoice.status, paid.latest_invoice.amount_paid) == ("paid", 1000)

    async def test_it_is_announced_three_days_before_and_once(self, shop: Shop) -> None:
        subscription = await shop.subscription(trial_period_days=14)
        await shop.advance(days=11)
        assert len(shop.events("customer.subscription.trial_will_end")) == 1
        await shop.advance(days=10)
        (event,) = shop.events("customer.subscription.trial_will_end")
        assert event["created"] == subscription.trial_end - 3 * 86400
        assert event["data"]["object"]["status"] == "trialing"

    async def test_a_trial_shorter_than_three_days_is_announced_at_once(self, shop: Shop) -> None:
        await shop.subscription(trial_period_days=2)
        assert shop.types()[-1] == "customer.subscription.trial_will_end"
        await shop.advance(days=3)
        assert len(shop.events("customer.subscription.trial_will_end")) == 1

    async def test_another_end_is_announced_again(self, shop: Shop) -> None:
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
    async def test_without_a_payment_method_it_ends_as_the_settings_say(
        self, shop: Shop, behavior: str, status: str, last: str
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

    async def test_a_planned_end_at_its_end_makes_no_invoice(self, shop: Shop) -> None:
        subscription = await shop.subscription(trial_period_days=14, cancel_at_period_end=True)
        await shop.advance(days=20)
        over = await shop.read(subscription)
        assert (over.status, over.ended_at) == ("canceled", subscription.trial_end)
        assert len(shop.double.objects("invoice")) == 1


class TestRenewal:
    async def test_every_period_is_invoiced_and_paid(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        await shop.advance(days=100)
        invoices = shop.double.objects("invoice")
        assert [invoice["billing_reason"] for invoice in invoices] == [
            "subscription_create",
            *["subscription_cycle"] * 3,
        ]
        assert {invoice["status"] for invoice in invoices} == {"paid"}
        periods = [invoice["lines"]["data"][0]["period"] for invoice in invoices]
        assert all(one["end"] == other["start"] for one, other in itertools.pairwise(periods))
        assert (await shop.read(subscription)).items.data[0].current_period_end == periods[-1]["end"]

    async def test_a_renewal_is_announced_before_by_an_invoice_without_an_id(self, shop: Shop) -> None:
        subscription = await shop.subscription()
        end = subscription.items.data[0].current_period_end
        await shop.advance(days=45)
        (event,) = shop.events("invoice.upcoming")
        assert event["created"] == end - 7 * 86400
        assert "id" not in event["data"]["object"]

    async def test_events_of_time_name_no_request(self, shop: Shop) -> None:
        await shop.subscription()
        await shop.advance(days=32)
        assert shop.events("invoice.paid")[-1]["request"] == {"id": None, "idempotency_key": None}

    async def test_things_happen_at_their_own_time_however_far_the_clock_is_moved(self, shop: Shop) -> None:
        await shop.subscription(trial_period_days=14)
        await shop.advance(days=400)
        times = [event["created"] for event in shop.double.objects("event")]
        assert times == sorted(times)
        assert len(set(times)) > 40


class TestDunning:
    async def failing(self, shop: Shop) -> Any:
        subscription = await shop.subscription()
        shop.double.simulate.decline(subscription.customer)
        await shop.advance(days=31, hours=2)
        return subscription

    async def test_a_declined_renewal_is_past_due_and_tried_again(self, shop: Shop) -> None:
        subscription = await self.failing(shop)
        late = await shop.read(subscription, "latest_invoice")
        assert (late.status, late.latest_invoice.status) == ("past_due", "open")
        assert (late.latest_invoice.attempt_count, late.latest_invoice.amount_remaining) == (1, 1000)
        await shop.advance(days=3)
        assert len(shop.events("invoice.payment_failed")) == 2
        assert len(shop.events("payment_intent.payment_failed")) == 2

    async def test_a_good_card_makes_the_next_attempt_succeed(self, shop: Shop) -> None:
        subscription = await self.failing(shop)
        shop.double.simulate.change_card(subscription.customer, "pm_card_visa")
        await shop.advance(days=3)
        recovered = await shop.read(subscription, "latest_invoice")
        assert (recovered.status, recovered.latest_invoice.status) == ("active", "paid")
        updated = shop.events("customer.subscription.updated")[-1]
        assert updated["data"]["previous_attributes"]["status"] == "past_due"

    @pytest.mark.parametrize("chosen", ["canceled", "unpaid", "past_due"])
    async def test_after_the_last_attempt_follows_what_the_owner_chose(self, chosen: str) -> None:
        async with open_shop(settings=Settings(after_retries=chosen, retry_days=(1, 2))) as shop:
            subscription = await self.failing(shop)
            await shop.advance(days=4)
            over = await shop.read(subscription, "latest_invoice")
            assert (over.status, over.latest_invoice.attempt_count) == (chosen, 3)
            assert (over.latest_invoice.status, over.latest_invoice.next_payment_attempt) == ("open", None)

    async def test_an_unpaid_one_goes_on_making_invoices_that_nobody_charges(self) -> None:
        async with open_shop(settings=Settings(after_retries="unpaid", retry_days=())) as shop:
            subscription = await self.failing(shop)
            await shop.advance(days=62)
            unpaid = await shop.read(subscription, "latest_invoice")
            assert (unpaid.status, unpaid.latest_invoice.status) == ("unpaid", "draft")
            await shop.api.invoices.pay_async(unpaid.latest_invoice.id, {"payment_method": "pm_card_visa"})
            assert (await shop.read(subscription)).status == "active"

    async def test_a_canceled_one_is_charged_no_more(self, shop: Shop) -> None:
        subscription = await self.failing(shop)
        await shop.api.subscriptions.cancel_async(subscription.id)
        attempts = len(shop.double.objects("charge"))
        await shop.advance(days=60)
        assert len(shop.double.objects("charge")) == attempts


class TestIncomplete:
    async def test_it_expires_after_23_hours_with_its_invoice_voided(self, shop: Shop) -> None:
        customer = await shop.customer("pm_card_chargeCustomerFail")
        subscription = await shop.subscription(customer.id)
        await shop.advance(hours=22)
        assert (await shop.read(subscription)).status == "incomplete"
        await shop.advance(hours=1)
        over = await shop.read(subscription, "latest_invoice")
        assert (over.status, over.latest_invoice.status) == ("incomplete_expired", "void")

    async def test_a_bank_debit_is_processing_for_days_and_active_meanwhile(self, shop: Shop) -> None:
        customer = await shop.customer("pm_usBankAccount_success")
        subscription = await shop.subscription(customer.id)
        assert subscription.status == "active"
        assert "payment_intent.processing" in shop.types()
        await shop.advance(days=5)
        assert shop.double.objects("payment_intent")[0]["status"] == "succeeded"
        assert (await shop.read(subscription, "latest_invoice")).latest_invoice.status == "paid"

    async def test_a_bank_debit_that_bounces_makes_it_past_due(self, shop: Shop) -> None:
        customer = await shop.customer("pm_usBankAccount_insufficientFunds")
        subscription = await shop.subscription(customer.id)
        await shop.advance(days=5)
        assert (await shop.read(subscription)).status == "past_due"


class TestClock:
    async def test_it_begins_where_it_is_told_to(self) -> None:
        async with open_shop(start=datetime(2030, 1, 31, tzinfo=UTC)) as shop:
            subscription = await shop.subscription()
            end = datetime.fromtimestamp(subscription.items.data[0].current_period_end, UTC)
            assert (end.month, end.day) == (2, 28)

    async def test_it_only_goes_forward(self, shop: Shop) -> None:
        with pytest.raises(ValueError, match="forward"):
            await shop.advance(days=-1)

    async def test_real_time_passes_too(self) -> None:
        async with open_shop() as shop:
            await shop.subscription(trial_end=shop.double.clock.now() + 1)
            await until(lambda: shop.double.objects("subscription")[0]["status"] == "active")
