import pytest
import stripe

from tests.stripe_double.shop import Shop


async def test_the_same_key_and_parameters_replay_the_response(shop: Shop) -> None:
    first = await shop.api.customers.create_async({"email": "a@example.com"}, {"idempotency_key": "k1"})
    again = await shop.api.customers.create_async({"email": "a@example.com"}, {"idempotency_key": "k1"})
    assert first.to_dict() == again.to_dict()
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert again.last_response.headers["original-request"] == first.last_response.request_id
    assert [call.replayed for call in shop.double.log[-2:]] == [False, True]
    assert len(shop.double.objects("customer")) == 1


async def test_the_replayed_response_is_the_first_although_the_object_changed(shop: Shop) -> None:
    customer = await shop.api.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
    await shop.api.customers.update_async(customer.id, {"name": "Grace"})
    again = await shop.api.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
    assert again.name == "Ada"


async def test_other_parameters_with_a_used_key_are_an_idempotency_error(shop: Shop) -> None:
    await shop.api.customers.create_async({"email": "a@example.com"}, {"idempotency_key": "k1"})
    with pytest.raises(stripe.IdempotencyError):
        await shop.api.customers.create_async({"email": "b@example.com"}, {"idempotency_key": "k1"})


async def test_a_request_that_fails_validation_does_not_use_up_its_key(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.subscriptions.create_async({"customer": "cus_none"}, {"idempotency_key": "k1"})
    customer = await shop.customer()
    params = {"customer": customer.id, "items": [{"price": shop.price}]}
    assert (await shop.api.subscriptions.create_async(params, {"idempotency_key": "k1"})).status == "active"


async def test_a_declined_card_is_replayed(shop: Shop) -> None:
    customer = await shop.customer("pm_card_chargeCustomerFail")
    params = {
        "customer": customer.id,
        "items": [{"price": shop.price}],
        "payment_behavior": "error_if_incomplete",
    }
    for _ in range(2):
        with pytest.raises(stripe.CardError) as caught:
            await shop.api.subscriptions.create_async(params, {"idempotency_key": "k1"})
    assert caught.value.headers["idempotent-replayed"] == "true"


async def test_a_key_expires_after_24_hours(shop: Shop) -> None:
    await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    await shop.advance(hours=24)
    again = await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    assert "idempotent-replayed" not in again.last_response.headers
    assert len(shop.double.objects("customer")) == 2


async def test_a_key_can_be_removed_before_it_expires(shop: Shop) -> None:
    await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    shop.double.idempotency.forget("k1")
    await shop.api.customers.create_async({}, {"idempotency_key": "k1"})
    assert len(shop.double.objects("customer")) == 2


async def test_a_delete_ignores_the_key_so_the_second_one_is_a_404(shop: Shop) -> None:
    subscription = await shop.subscription()
    await shop.api.subscriptions.cancel_async(subscription.id, options={"idempotency_key": "k1"})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.api.subscriptions.cancel_async(subscription.id, options={"idempotency_key": "k1"})
    assert caught.value.http_status == 404


async def test_a_key_of_256_characters_is_refused(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await shop.api.customers.create_async({}, {"idempotency_key": "k" * 256})
