"""Deliveries: signed, tried again, shuffled, repeated, delayed, lost, held."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import stripe

from services.stripe_double import DeliveryFaults, RetryPolicy, signature
from tests.stripe_double.shop import SECRET, USES_STRIPE, Receiver, Shop, open_shop, receiving, until

pytestmark = USES_STRIPE
QUICK = RetryPolicy(scale=0.001)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def shop(receiver: Receiver) -> AsyncIterator[Shop]:
    async with open_shop(webhook_secrets=[SECRET], retries=QUICK) as shop:
        shop.double.webhooks.url = receiver.url
        await shop.double.webhooks.drain()
        receiver.bodies.clear()
        receiver.signatures.clear()
        receiver.busiest = 0
        yield shop


class TestSigning:
    async def test_stripes_own_library_accepts_what_is_sent(self, shop: Shop, receiver: Receiver) -> None:
        customer = await shop.customer(name="Žofie")
        await shop.double.webhooks.drain()
        for body, header in zip(receiver.bodies, receiver.signatures, strict=True):
            event = stripe.Webhook.construct_event(body, header, SECRET)
            assert event.livemode is False
        assert event.data.object.id == customer.id
        assert "Žofie".encode() in body

    async def test_each_live_secret_signs(self, shop: Shop, receiver: Receiver) -> None:
        shop.double.webhooks.secrets = ["whsec_old", "whsec_new"]
        await shop.customer(None)
        await shop.double.webhooks.drain()
        for secret in ("whsec_old", "whsec_new"):
            assert stripe.WebhookSignature.verify_header(receiver.bodies[0], receiver.signatures[0], secret, 300)
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.WebhookSignature.verify_header(receiver.bodies[0], receiver.signatures[0], SECRET, 300)

    async def test_the_time_signed_is_the_real_one_although_the_doubles_clock_is_ahead(
        self, shop: Shop, receiver: Receiver
    ) -> None:
        await shop.subscription(trial_period_days=14)
        await shop.advance(days=14)
        await shop.double.webhooks.drain()
        for body, header in zip(receiver.bodies, receiver.signatures, strict=True):
            stripe.Webhook.construct_event(body, header, SECRET, tolerance=5)

    def test_a_signature_of_another_time_can_be_made_for_a_test(self) -> None:
        old = signature(b"{}", [SECRET], at=1)
        with pytest.raises(stripe.SignatureVerificationError, match="tolerance"):
            stripe.WebhookSignature.verify_header(b"{}", old, SECRET, 300)

    async def test_the_body_is_indented_so_that_dumping_it_again_breaks_the_signature(
        self, shop: Shop, receiver: Receiver
    ) -> None:
        await shop.customer(None)
        await shop.double.webhooks.drain()
        again = json.dumps(json.loads(receiver.bodies[0])).encode()
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(again, receiver.signatures[0], SECRET)


class TestDelivering:
    async def test_events_wait_until_the_url_is_known(self, receiver: Receiver) -> None:
        async with open_shop(webhook_secrets=[SECRET]) as shop:
            await shop.customer(None)
            assert len(shop.double.webhooks.waiting) == 3
            assert shop.double.deliveries == []
            shop.double.webhooks.url = receiver.url
            await shop.double.webhooks.drain()
            assert receiver.types == ["product.created", "price.created", "customer.created"]

    async def test_without_a_secret_the_own_endpoint_gets_nothing(self, receiver: Receiver) -> None:
        async with open_shop(webhook_url=receiver.url) as shop:
            await shop.customer(None)
            await shop.double.webhooks.drain()
        assert receiver.bodies == []

    async def test_what_is_not_accepted_is_sent_again_with_a_fresh_signature(
        self, shop: Shop, receiver: Receiver
    ) -> None:
        receiver.statuses = [500, 302, 404]
        await shop.customer(None)
        await shop.double.webhooks.drain()
        assert len(set(receiver.ids)) == 1
        attempts = [(attempt.number, attempt.status) for attempt in shop.double.deliveries[-4:]]
        assert attempts == [(1, 500), (2, 302), (3, 404), (4, 200)]
        assert (await shop.api.events.list_async({"delivery_success": False})).data == []

    async def test_a_receiver_that_is_down_is_tried_until_it_is_back(self, receiver: Receiver) -> None:
        async with open_shop(webhook_secrets=[SECRET], retries=RetryPolicy(scale=0.002)) as shop:
            shop.double.webhooks.url = "http://127.0.0.1:1/"
            await shop.customer(None)
            await until(lambda: len(shop.double.deliveries) >= 3)
            assert shop.double.deliveries[0].error is not None
            shop.double.webhooks.url = receiver.url
            await shop.double.webhooks.drain()
            assert sorted(receiver.types) == ["customer.created", "price.created", "product.created"]

    async def test_after_three_days_of_failing_it_is_given_up_but_still_listed(self, receiver: Receiver) -> None:
        retries = RetryPolicy(first=86400, factor=1, scale=0.0)
        async with open_shop(webhook_secrets=[SECRET], webhook_url=receiver.url, retries=retries) as shop:
            receiver.statuses = [500] * 8
            await shop.double.webhooks.drain()
            undelivered = await shop.api.events.list_async({"delivery_success": False})
            assert {event.type for event in undelivered.data} == {"product.created", "price.created"}
            assert len(receiver.bodies) == 8

    async def test_an_endpoint_that_is_deleted_is_tried_no_more(self, shop: Shop) -> None:
        made = await shop.api.webhook_endpoints.create_async({"url": "http://127.0.0.1:1/", "enabled_events": ["*"]})
        shop.double.webhooks.retries = RetryPolicy(first=3600)
        await shop.customer(None)
        await until(lambda: shop.double.webhooks.waiting and shop.double.webhooks.waiting[0]["attempts"] == 1)
        await shop.api.webhook_endpoints.delete_async(made.id)
        await shop.double.webhooks.drain()
        assert shop.double.webhooks.waiting == []

    async def test_an_event_is_sent_again_by_order(self, shop: Shop, receiver: Receiver) -> None:
        await shop.customer(None)
        await shop.double.webhooks.drain()
        shop.double.webhooks.resend(receiver.ids[0])
        await shop.double.webhooks.drain()
        assert receiver.ids == [receiver.ids[0]] * 2

    async def test_endpoints_made_by_the_api_get_the_types_that_they_want(self, shop: Shop, receiver: Receiver) -> None:
        async with receiving() as other:
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


async def test_a_thin_event_says_what_to_read_and_not_what_it_says(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.thin = True
    customer = await shop.api.customers.create_async({"name": "Ada"}, {"idempotency_key": "k1"})
    await shop.double.webhooks.drain()
    body, header = receiver.bodies[0], receiver.signatures[0]
    notification: Any = shop.client.parse_event_notification(body, header, SECRET)
    assert (notification.type, notification.livemode) == ("v1.customer.created", False)
    assert notification.reason.request.idempotency_key == "k1"
    # The library's fetch_related_object_async sends a stray parameter, so the link is followed by hand.
    answer = await shop.client.raw_request_async("get", notification.related_object.url)
    assert answer.data["id"] == customer.id
    (snapshot,) = shop.events("customer.created")
    assert json.loads(body)["snapshot_event"] == snapshot["id"] != notification.id
    assert b"Ada" not in body
    with pytest.raises(ValueError, match="thin"):
        stripe.Webhook.construct_event(body, header, SECRET)


class TestDisorder:
    async def test_shuffled_ones_change_places(self, shop: Shop, receiver: Receiver) -> None:
        shop.double.webhooks.faults = DeliveryFaults(shuffle_seconds=0.2, seed=1)
        await shop.subscription()
        await shop.double.webhooks.drain()
        made = [event["id"] for event in shop.double.objects("event")][2:]
        assert receiver.ids != made
        assert sorted(receiver.ids) == sorted(made)

    @pytest.mark.parametrize("parallel", [False, True])
    async def test_repeated_ones_come_several_times(self, shop: Shop, receiver: Receiver, parallel: bool) -> None:  # noqa: FBT001
        receiver.pause = 0.2
        shop.double.webhooks.faults = DeliveryFaults(copies=3, parallel=parallel)
        await shop.customer(None)
        await shop.double.webhooks.drain()
        assert receiver.ids == [receiver.ids[0]] * 3
        assert receiver.busiest == (3 if parallel else 1)

    async def test_delayed_ones_wait(self, shop: Shop, receiver: Receiver) -> None:
        shop.double.webhooks.faults = DeliveryFaults(delay_seconds=30)
        await shop.customer(None)
        with pytest.raises(TimeoutError):
            await shop.double.webhooks.drain(0.05)
        assert receiver.bodies == []

    async def test_lost_ones_never_come_but_are_listed(self, shop: Shop, receiver: Receiver) -> None:
        shop.double.webhooks.faults = DeliveryFaults(loss_rate=0.5, seed=3)
        await shop.subscription()
        await shop.double.webhooks.drain()
        undelivered = await shop.api.events.list_async({"delivery_success": False, "limit": 100})
        lost = {event.id for event in undelivered.data}
        made = {event["id"] for event in shop.double.objects("event")[2:]}
        assert lost
        assert set(receiver.ids) == made - lost

    async def test_the_same_seed_plays_the_same_disorder(self) -> None:
        def rolls() -> list[tuple[float, bool]]:
            disorder = DeliveryFaults(shuffle_seconds=1, loss_rate=0.5, seed=7)
            return [(disorder.wait(), disorder.loses()) for _ in range(20)]

        assert rolls() == rolls()


class TestHolding:
    async def test_held_ones_are_released_in_any_order_repeated_and_thinned(
        self, shop: Shop, receiver: Receiver
    ) -> None:
        shop.double.webhooks.hold()
        await shop.subscription()
        held = [event["id"] for event in shop.double.webhooks.held]
        await shop.double.webhooks.drain()
        assert receiver.bodies == []

        order = [held[-1], held[0], held[-1]]
        await shop.double.webhooks.release(order)

        assert receiver.ids == order
        undelivered = await shop.api.events.list_async({"delivery_success": False, "limit": 100})
        assert {event.id for event in undelivered.data} == set(held) - set(order)

    async def test_released_without_an_order_they_come_as_they_happened(self, shop: Shop, receiver: Receiver) -> None:
        shop.double.webhooks.hold()
        await shop.subscription()
        held = [event["id"] for event in shop.double.webhooks.held]
        await shop.double.webhooks.release()
        assert receiver.ids == held
        assert shop.double.webhooks.held == []

    async def test_a_released_one_that_is_not_accepted_is_tried_again(self, shop: Shop, receiver: Receiver) -> None:
        shop.double.webhooks.hold()
        await shop.customer(None)
        receiver.statuses = [503]
        await shop.double.webhooks.release()
        await shop.double.webhooks.drain()
        assert receiver.ids == [receiver.ids[0]] * 2


async def test_a_test_may_post_a_delivery_itself(shop: Shop, receiver: Receiver) -> None:
    shop.double.webhooks.hold()
    await shop.customer(None)
    (event,) = shop.double.webhooks.held
    body = shop.double.webhooks.payload(event)
    async with httpx.AsyncClient() as http:
        await http.post(receiver.url, content=body, headers={"stripe-signature": signature(body, [SECRET])})
    assert stripe.Webhook.construct_event(receiver.bodies[0], receiver.signatures[0], SECRET).id == event["id"]


@pytest.mark.parametrize(("attempts", "wait"), [(1, 5.0), (2, 20.0), (3, 80.0), (8, 81920.0), (9, None)])
def test_retries_grow_for_three_days(attempts: int, wait: float | None) -> None:
    assert RetryPolicy().wait(attempts) == wait
