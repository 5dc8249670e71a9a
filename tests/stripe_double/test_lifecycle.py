import itertools
from typing import Any

import pytest

from tests.stripe_double.shop import Shop, open_shop, until


async def test_every_period_is_invoiced_and_paid(shop: Shop) -> None:
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


async def test_invoice_upcoming_precedes_a_renewal_and_has_no_id(shop: Shop) -> None:
    subscription = await shop.subscription()
    end = subscription.items.data[0].current_period_end
    await shop.advance(days=45)
    (event,) = shop.events("invoice.upcoming")
    assert event["created"] == end - 7 * 86400
    invoice = event["data"]["object"]
    assert "id" not in invoice
    assert (invoice["object"], invoice["billing_reason"], invoice["amount_due"]) == ("invoice", "upcoming", 1000)
    assert [line["period"]["start"] for line in invoice["lines"]["data"]] == [end]


@pytest.mark.parametrize(
    ("params", "change", "amounts"),
    [
        ({}, {}, [1000]),
        ({"trial_period_days": 14}, {}, [1000]),
        # Quantity 3 from the middle of the first period of 31 days.
        ({}, {"quantity": 3}, [-500, 1500, 3000]),
    ],
)
async def test_the_upcoming_invoice_has_the_lines_of_the_next_period_and_all_prorations(
    params: dict[str, Any], change: dict[str, Any], amounts: list[int], shop: Shop
) -> None:
    subscription = await shop.subscription(**params)
    if change:
        await shop.advance(days=15, hours=12)
        items = [{"id": subscription.items.data[0].id, **change}]
        await shop.api.subscriptions.update_async(subscription.id, {"items": items})
    await shop.advance(days=31)
    event = shop.events("invoice.upcoming")[0]
    assert [line["amount"] for line in event["data"]["object"]["lines"]["data"]] == amounts
    assert shop.events("invoice.created")[1]["data"]["object"]["total"] == sum(amounts)


async def test_events_caused_by_time_name_no_request(shop: Shop) -> None:
    await shop.subscription()
    await shop.advance(days=32)
    assert shop.events("invoice.paid")[-1]["request"] == {"id": None, "idempotency_key": None}


async def test_changes_get_their_due_times_however_far_the_clock_advances(shop: Shop) -> None:
    await shop.subscription(trial_period_days=14)
    await shop.advance(days=400)
    times = [event["created"] for event in shop.double.objects("event")]
    assert times == sorted(times)
    assert len(set(times)) > 40


async def test_an_incomplete_subscription_expires_after_23_hours(shop: Shop) -> None:
    customer = await shop.customer("pm_card_chargeCustomerFail")
    subscription = await shop.subscription(customer.id)
    await shop.advance(hours=22)
    assert (await shop.read(subscription)).status == "incomplete"
    await shop.advance(hours=1)
    expired = await shop.read(subscription, "latest_invoice")
    assert (expired.status, expired.latest_invoice.status) == ("incomplete_expired", "void")


async def test_a_bank_debit_is_processing_while_the_subscription_is_active(shop: Shop) -> None:
    customer = await shop.customer("pm_usBankAccount_success")
    subscription = await shop.subscription(customer.id)
    assert subscription.status == "active"
    assert "payment_intent.processing" in shop.types()
    await shop.advance(days=5)
    assert shop.double.objects("payment_intent")[0]["status"] == "succeeded"
    assert (await shop.read(subscription, "latest_invoice")).latest_invoice.status == "paid"


async def test_a_returned_bank_debit_makes_the_subscription_past_due(shop: Shop) -> None:
    customer = await shop.customer("pm_usBankAccount_insufficientFunds")
    subscription = await shop.subscription(customer.id)
    await shop.advance(days=5)
    assert (await shop.read(subscription)).status == "past_due"


async def test_changes_become_due_in_real_time_too() -> None:
    async with open_shop() as shop:
        subscription = await shop.subscription(trial_period_days=1)
        shop.double.clock.move_to(subscription.trial_end - 1)
        await until(lambda: shop.double.objects("subscription")[0]["status"] == "active")
