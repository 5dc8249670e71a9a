import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_the_same_card_has_the_same_fingerprint_for_all_customers(shop: Shop) -> None:
    cards = [
        await shop.api.payment_methods.attach_async("pm_card_visa", {"customer": (await shop.customer(None)).id})
        for _ in range(2)
    ]
    other = await shop.api.payment_methods.create_async({"type": "card", "card": {"token": "tok_mastercard"}})
    assert cards[0].id != cards[1].id
    assert cards[0].card.fingerprint == cards[1].card.fingerprint != other.card.fingerprint


async def test_a_card_that_declines_at_once_cannot_be_attached(shop: Shop) -> None:
    customer = await shop.customer(None)
    with pytest.raises(stripe.CardError) as caught:
        await shop.api.payment_methods.attach_async("pm_card_chargeDeclined", {"customer": customer.id})
    assert (caught.value.code, caught.value.error.decline_code) == ("card_declined", "generic_decline")


async def test_a_detached_card_is_no_longer_the_default(shop: Shop) -> None:
    customer = await shop.customer()
    card = customer.invoice_settings.default_payment_method
    await shop.api.payment_methods.detach_async(card)
    again = await shop.api.customers.retrieve_async(customer.id)
    assert again.invoice_settings.default_payment_method is None
    assert (await shop.api.customers.payment_methods.list_async(customer.id)).data == []


async def test_a_card_cannot_be_attached_to_two_customers(shop: Shop) -> None:
    card = (await shop.customer()).invoice_settings.default_payment_method
    other = await shop.customer(None)
    with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
        await shop.api.payment_methods.attach_async(card, {"customer": other.id})
