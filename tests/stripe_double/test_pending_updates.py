"""Pending updates and previews of invoices."""

from typing import Any

import pytest
import stripe

from tests.stripe_double.shop import Shop


async def upgraded(shop: Shop, subscription: Any, quantity: int = 3, **params: Any) -> Any:
    """Change the quantity under `pending_if_incomplete`, invoiced at once."""
    change = {
        "items": [{"id": subscription.items.data[0].id, "quantity": quantity}],
        "proration_behavior": "always_invoice",
        "payment_behavior": "pending_if_incomplete",
        **params,
    }
    return await shop.api.subscriptions.update_async(subscription.id, change)


async def test_an_update_that_is_paid_takes_effect_at_once(shop: Shop) -> None:
    changed = await upgraded(shop, await shop.subscription())
    assert (changed.pending_update, changed.items.data[0].quantity) == (None, 3)


async def test_a_declined_update_waits_for_the_payment(shop: Shop) -> None:
    subscription = await shop.subscription()
    shop.double.simulate.decline(subscription.customer)
    changed = await upgraded(shop, subscription)
    assert (changed.status, changed.items.data[0].quantity) == ("active", 1)
    assert changed.pending_update.subscription_items[0].quantity == 3
    assert changed.pending_update.expires_at == shop.double.clock.now() + 23 * 3600
    shop.double.simulate.recover(subscription.customer)
    paid = await shop.read(subscription)
    assert (paid.pending_update, paid.items.data[0].quantity, paid.status) == (None, 3, "active")
    assert "customer.subscription.pending_update_applied" in shop.types()


async def test_an_unpaid_update_is_dropped_and_its_invoice_voided(shop: Shop) -> None:
    subscription = await shop.subscription()
    shop.double.simulate.decline(subscription.customer)
    changed = await upgraded(shop, subscription)
    await shop.advance(hours=23)
    dropped = await shop.read(subscription)
    assert (dropped.pending_update, dropped.items.data[0].quantity) == (None, 1)
    assert shop.double.object("invoice", changed.latest_invoice)["status"] == "void"
    assert "customer.subscription.pending_update_expired" in shop.types()


async def test_a_further_update_replaces_the_pending_one(shop: Shop) -> None:
    subscription = await shop.subscription()
    shop.double.simulate.decline(subscription.customer)
    first = await upgraded(shop, subscription)
    second = await upgraded(shop, subscription, 5)
    assert second.pending_update.subscription_items[0].quantity == 5
    assert shop.double.object("invoice", first.latest_invoice)["status"] == "void"
    assert shop.double.object("invoice", second.latest_invoice)["status"] == "open"


async def test_other_parameters_do_not_wait(shop: Shop) -> None:
    subscription = await shop.subscription()
    with pytest.raises(stripe.InvalidRequestError, match="pending_if_incomplete"):
        await upgraded(shop, subscription, description="Beak")


async def test_an_update_that_must_not_be_incomplete_changes_nothing(shop: Shop) -> None:
    subscription = await shop.subscription()
    shop.double.simulate.decline(subscription.customer)
    with pytest.raises(stripe.CardError):
        await upgraded(shop, subscription, payment_behavior="error_if_incomplete")
    assert (await shop.read(subscription)).items.data[0].quantity == 1
    assert len(shop.double.objects("invoice")) == 1


@pytest.mark.parametrize(
    ("behavior", "total", "reason"),
    [
        ("always_invoice", 2000, "subscription_update"),
        ("create_prorations", 5000, "upcoming"),
        ("none", 3000, "upcoming"),
    ],
)
async def test_a_preview_equals_the_invoice_and_changes_nothing(
    behavior: str, total: int, reason: str, shop: Shop
) -> None:
    subscription = await shop.subscription()
    before = len(shop.double.objects("event"))
    change = {"items": [{"id": subscription.items.data[0].id, "quantity": 3}], "proration_behavior": behavior}
    preview = await shop.api.invoices.create_preview_async(
        {"subscription": subscription.id, "subscription_details": change}
    )
    assert (preview.total, preview.amount_due, preview.billing_reason) == (total, total, reason)
    assert preview.id.startswith("upcoming_")
    assert len(shop.double.objects("event")) == before
    assert len(shop.double.objects("invoice")) == 1
    assert (await shop.read(subscription)).items.data[0].quantity == 1


async def test_a_cancelled_subscription_has_no_next_invoice(shop: Shop) -> None:
    subscription = await shop.subscription(cancel_at_period_end=True)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await shop.api.invoices.create_preview_async({"subscription": subscription.id})
    assert refused.value.code == "invoice_upcoming_none"


async def test_a_proration_date_must_be_in_the_period(shop: Shop) -> None:
    subscription = await shop.subscription()
    with pytest.raises(stripe.InvalidRequestError, match="proration date"):
        await upgraded(shop, subscription, proration_date=shop.double.clock.now() - 86400)
