import json
from collections.abc import AsyncIterator

import httpx
import pytest
import stripe

from services.stripe_double import DeliveryFaults, RetryPolicy, signature
from tests.stripe_double.shop import SECRET, Receiver, Shop, open_receiver, open_shop, until


@pytest.fixture
async def shop(receiver: Receiver) -> AsyncIterator[Shop]:
    """A shop whose events go to the receiver, with fast retries."""
    async with open_shop(webhook_secrets=[SECRET], retries=RetryPolicy(scale=0.001)) as shop:
        shop.double.webhooks.url = receiver.url
        await shop.double.webhooks.drain()
        receiver.bodies.clear()
        receiver.signatures.clear()
        receiver.most_concurrent = 0
        yield shop


async def test_stripe_python_accepts_the_signatures(shop: Shop, receiver: Receiver) -> None:
    customer = await shop.customer(name="Žofie")
    await shop.double.webhooks.drain()
    for body, header in zip(receiver.bodies, receiver.signatures, strict=True):
        event = stripe.Webhook.construct_event(body, header, SECRET)
        assert event.livemode is False
    assert event.data.object.id == customer.id
    assert "Žofie".encode() in body


async def test_each_active_secret_signs(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.secrets = ["whsec_old", "whsec_new"]
    await shop.customer(None)
    await shop.double.webhooks.drain()
    for secret in ("whsec_old", "whsec_new"):
        assert stripe.WebhookSignature.verify_header(receiver.bodies[0], receiver.signatures[0], secret, 300)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(receiver.bodies[0], receiver.signatures[0], SECRET, 300)


async def test_signatures_have_real_time_although_the_clock_is_ahead(shop: Shop, receiver: Receiver) -> None:
    await shop.subscription(trial_period_days=14)
    await shop.advance(days=14)
    await shop.double.webhooks.drain()
    for body, header in zip(receiver.bodies, receiver.signatures, strict=True):
        stripe.Webhook.construct_event(body, header, SECRET, tolerance=5)


def test_a_signature_can_be_made_for_another_time() -> None:
    old = signature(b"{}", [SECRET], at=1)
    with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
        stripe.WebhookSignature.verify_header(b"{}", old, SECRET, 300)


async def test_a_body_that_is_serialized_again_has_an_invalid_signature(shop: Shop, receiver: Receiver) -> None:
    await shop.customer(None)
    await shop.double.webhooks.drain()
    again = json.dumps(json.loads(receiver.bodies[0])).encode()
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(again, receiver.signatures[0], SECRET)


async def test_deliveries_wait_until_the_url_is_set(receiver: Receiver) -> None:
    async with open_shop(webhook_secrets=[SECRET]) as shop:
        await shop.customer(None)
        assert len(shop.double.webhooks.pending) == 3
        assert shop.double.deliveries == []
        shop.double.webhooks.url = receiver.url
        await shop.double.webhooks.drain()
        assert receiver.types == ["product.created", "price.created", "customer.created"]


async def test_without_a_secret_the_configured_endpoint_receives_nothing(receiver: Receiver) -> None:
    async with open_shop(webhook_url=receiver.url) as shop:
        await shop.customer(None)
        await shop.double.webhooks.drain()
    assert receiver.bodies == []


async def test_the_configured_endpoint_receives_its_event_types(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.enabled_events = ("customer.subscription.*", "invoice.paid")
    await shop.subscription()
    await shop.double.webhooks.drain()
    assert sorted(receiver.types) == ["customer.subscription.created", "invoice.paid"]


async def test_a_failed_delivery_is_retried_until_a_2xx(shop: Shop, receiver: Receiver) -> None:
    receiver.statuses = [500, 302, 404]
    await shop.customer(None)
    await shop.double.webhooks.drain()
    assert len(set(receiver.ids)) == 1
    attempts = [(attempt.number, attempt.status) for attempt in shop.double.deliveries[-4:]]
    assert attempts == [(1, 500), (2, 302), (3, 404), (4, 200)]
    assert (await shop.api.events.list_async({"delivery_success": False})).data == []


async def test_an_endpoint_that_is_down_is_retried_until_it_is_back(receiver: Receiver) -> None:
    async with open_shop(webhook_secrets=[SECRET], retries=RetryPolicy(scale=0.002)) as shop:
        shop.double.webhooks.url = "http://127.0.0.1:1/"
        await shop.customer(None)
        await until(lambda: len(shop.double.deliveries) >= 3)
        assert shop.double.deliveries[0].error is not None
        shop.double.webhooks.url = receiver.url
        await shop.double.webhooks.drain()
        assert sorted(receiver.types) == ["customer.created", "price.created", "product.created"]


async def test_retries_stop_after_three_days_and_the_event_stays_undelivered(receiver: Receiver) -> None:
    retries = RetryPolicy(first=86400, factor=1, scale=0.0)
    async with open_shop(webhook_secrets=[SECRET], webhook_url=receiver.url, retries=retries) as shop:
        receiver.statuses = [500] * 8
        await shop.double.webhooks.drain()
        undelivered = await shop.api.events.list_async({"delivery_success": False})
        assert {event.type for event in undelivered.data} == {"product.created", "price.created"}
        assert len(receiver.bodies) == 8


async def test_deleting_an_endpoint_drops_its_pending_deliveries(shop: Shop) -> None:
    made = await shop.api.webhook_endpoints.create_async({"url": "http://127.0.0.1:1/", "enabled_events": ["*"]})
    shop.double.webhooks.retries = RetryPolicy(first=3600)
    await shop.customer(None)
    await until(lambda: shop.double.webhooks.pending and shop.double.webhooks.pending[0]["attempts"] == 1)
    await shop.api.webhook_endpoints.delete_async(made.id)
    await shop.double.webhooks.drain()
    assert shop.double.webhooks.pending == []


async def test_an_event_can_be_resent(shop: Shop, receiver: Receiver) -> None:
    await shop.customer(None)
    await shop.double.webhooks.drain()
    shop.double.webhooks.resend(receiver.ids[0])
    await shop.double.webhooks.drain()
    assert receiver.ids == [receiver.ids[0]] * 2


async def test_an_endpoint_receives_its_enabled_events(shop: Shop, receiver: Receiver) -> None:
    async with open_receiver() as other:
        made = await shop.api.webhook_endpoints.create_async(
            {"url": other.url, "enabled_events": ["customer.subscription.*"]}
        )
        await shop.subscription()
        await shop.double.webhooks.drain()
        assert other.types == ["customer.subscription.created"]
        stripe.Webhook.construct_event(other.bodies[0], other.signatures[0], made.secret)
        assert not hasattr(await shop.api.webhook_endpoints.retrieve_async(made.id), "secret")
        await shop.api.webhook_endpoints.update_async(made.id, {"disabled": True})
        await shop.subscription()
        await shop.api.webhook_endpoints.delete_async(made.id)
        await shop.double.webhooks.drain()
        assert len(other.bodies) == 1
    assert len(receiver.bodies) > 10


async def test_shuffled_deliveries_change_places(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.faults = DeliveryFaults(shuffle_seconds=0.2, seed=1)
    await shop.subscription()
    await shop.double.webhooks.drain()
    made = [event["id"] for event in shop.double.objects("event")][2:]
    assert receiver.ids != made
    assert sorted(receiver.ids) == sorted(made)


@pytest.mark.parametrize("parallel", [False, True])
async def test_copies_are_sent_one_after_the_other_or_in_parallel(
    shop: Shop, receiver: Receiver, *, parallel: bool
) -> None:
    receiver.delay = 0.2
    shop.double.webhooks.faults = DeliveryFaults(copies=3, parallel=parallel)
    await shop.customer(None)
    await shop.double.webhooks.drain()
    assert receiver.ids == [receiver.ids[0]] * 3
    assert receiver.most_concurrent == (3 if parallel else 1)


async def test_delayed_deliveries_stay_pending(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.faults = DeliveryFaults(delay_seconds=30)
    await shop.customer(None)
    with pytest.raises(TimeoutError):
        await shop.double.webhooks.drain(0.05)
    assert receiver.bodies == []


async def test_lost_deliveries_are_listed_as_undelivered(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.faults = DeliveryFaults(loss_rate=0.5, seed=3)
    await shop.subscription()
    await shop.double.webhooks.drain()
    undelivered = await shop.api.events.list_async({"delivery_success": False, "limit": 100})
    lost = {event.id for event in undelivered.data}
    made = {event["id"] for event in shop.double.objects("event")[2:]}
    assert lost
    assert set(receiver.ids) == made - lost


async def test_held_deliveries_are_released_in_the_given_order(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.hold()
    await shop.subscription()
    held = [event["id"] for event in shop.double.webhooks.held_events]
    await shop.double.webhooks.drain()
    assert receiver.bodies == []

    order = [held[-1], held[0], held[-1]]
    await shop.double.webhooks.release(order)

    assert receiver.ids == order
    undelivered = await shop.api.events.list_async({"delivery_success": False, "limit": 100})
    assert {event.id for event in undelivered.data} == set(held) - set(order)


async def test_held_deliveries_are_released_in_the_order_of_the_events(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.hold()
    await shop.subscription()
    held = [event["id"] for event in shop.double.webhooks.held_events]
    await shop.double.webhooks.release()
    assert receiver.ids == held
    assert shop.double.webhooks.held_events == []


async def test_a_released_delivery_that_fails_is_retried(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.hold()
    await shop.customer(None)
    receiver.statuses = [503]
    await shop.double.webhooks.release()
    await shop.double.webhooks.drain()
    assert receiver.ids == [receiver.ids[0]] * 2


async def test_a_payload_and_its_signature_can_be_made_without_delivery(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.hold()
    await shop.customer(None)
    (event,) = shop.double.webhooks.held_events
    body = shop.double.webhooks.payload(event)
    async with httpx.AsyncClient() as http:
        await http.post(receiver.url, content=body, headers={"stripe-signature": signature(body, [SECRET])})
    assert stripe.Webhook.construct_event(receiver.bodies[0], receiver.signatures[0], SECRET).id == event["id"]


@pytest.mark.parametrize(("attempts", "wait"), [(1, 5.0), (2, 20.0), (3, 80.0), (8, 81920.0), (9, None)])
def test_retry_intervals_grow_for_three_days(attempts: int, wait: float | None) -> None:
    assert RetryPolicy().wait(attempts) == wait
