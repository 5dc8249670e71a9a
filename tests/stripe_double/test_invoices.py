import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_an_invoice_is_marked_uncollectible_and_voided(shop: Shop) -> None:
    subscription, intent = await shop.incomplete_subscription()
    uncollectible = await shop.api.invoices.mark_uncollectible_async(subscription.latest_invoice)
    assert uncollectible.status == "uncollectible"
    voided = await shop.api.invoices.void_invoice_async(subscription.latest_invoice)
    assert (voided.status, voided.amount_remaining) == ("void", 0)
    assert (await shop.api.payment_intents.retrieve_async(intent.id)).status == "canceled"
    paid = await shop.api.invoice_payments.list_async({"invoice": voided.id, "status": "canceled"})
    assert len(paid.data) == 1
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.invoices.pay_async(voided.id, {"payment_method": "pm_card_visa"})


async def test_an_invoice_is_paid_outside_of_stripe(shop: Shop) -> None:
    customer = await shop.customer("pm_card_chargeCustomerFail")
    subscription = await shop.subscription(customer.id)
    paid = await shop.api.invoices.pay_async(subscription.latest_invoice, {"paid_out_of_band": True})
    assert (paid.status, paid.amount_paid, paid.amount_paid_off_stripe) == ("paid", 1000, 1000)
    assert (await shop.read(subscription)).status == "active"
    assert [payment["status"] for payment in shop.double.objects("invoice_payment")] == ["canceled"]
    assert [charge["status"] for charge in shop.double.objects("charge")] == ["failed"]
