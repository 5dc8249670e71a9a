"""Stripe's events: signed by Stripe, stored as they came, before anybody is told so."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from stripe import WebhookSignature

from shared.messages.stripe import StripeEvent
from shared.producer import BusDown
from tests.gateway.conftest import WEBHOOK_SECRETS, World
from tests.stack import eventually

PATH = "/1/webhook/stripe"


def event(**changed: Any) -> dict[str, Any]:
    return {
        "id": "evt_1",
        "object": "event",
        "type": "customer.subscription.updated",
        "created": int(time.time()),
        "livemode": False,
        "data": {"object": {"id": "sub_1", "object": "subscription", "customer": "cus_1"}},
        **changed,
    }


def signed(body: bytes | str, secret: str = WEBHOOK_SECRETS[1], at: float | None = None) -> dict[str, str]:
    text = body if isinstance(body, str) else body.decode()
    moment = None if at is None else int(at)
    return {"stripe-signature": WebhookSignature.generate_signature_header(text, secret, moment)}


async def post(world: World, body: bytes, headers: dict[str, Any]) -> tuple[int, str]:
    answer = await world.http.post(PATH, content=body, headers=headers)
    return answer.status_code, answer.json().get("code", "received")


async def heard(world: World, count: int) -> None:
    await eventually(lambda: len(world.services.heard) >= count, what="events on Kafka")


@pytest.mark.parametrize("secret", WEBHOOK_SECRETS)
async def test_an_event_is_stored_byte_for_byte(world: World, secret: str) -> None:
    body = json.dumps(event(), indent=2, ensure_ascii=False).encode() + b"\n"
    answer = await world.http.post(PATH, content=body, headers=signed(body, secret))
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    await heard(world, 1)
    stored = world.services.heard[0]
    assert (stored.topic, stored.wire, stored.key) == ("stripe.webhooks", "stripe.event", "cus_1")
    assert stored.body == body
    assert stored.caller.kind == "service"
    assert stored.reply_to is None
    assert StripeEvent.model_validate_json(stored.body).id == "evt_1"


async def test_a_repeat_has_the_id_of_the_first_and_another_event_has_not(world: World) -> None:
    sent = [event(), event(), event(id="evt_2"), event(account="acct_1")]
    for each in sent:
        body = json.dumps(each).encode()
        assert (await post(world, body, signed(body)))[0] == 200
    await heard(world, 4)
    ids = [stored.id for stored in world.services.heard]
    # Partitions are read side by side, so only what they hold in all is known.
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("about", "key"),
    [
        ({"id": "cus_9", "object": "customer"}, "cus_9"),
        ({"id": "sub_1", "object": "subscription", "customer": "cus_9"}, "cus_9"),
        ({"id": "sub_1", "object": "subscription", "customer": {"id": "cus_9"}}, "cus_9"),
        ({"id": "dp_1", "object": "dispute", "charge": "ch_1"}, "dp_1"),
        ({"id": "pi_1", "object": "payment_intent", "customer": None}, "pi_1"),
        ({"object": "invoice"}, ""),
        ({"id": 7, "object": "invoice", "customer": 8}, ""),
    ],
)
async def test_events_of_one_customer_share_a_key(world: World, about: dict[str, Any], key: str) -> None:
    body = json.dumps(event(data={"object": about})).encode()
    assert (await post(world, body, signed(body)))[0] == 200
    await heard(world, 1)
    stored = world.services.heard[0]
    assert stored.key == (key or stored.id)


async def test_another_provider_is_unknown(world: World) -> None:
    for path in ("/1/webhook/paypal", "/1/webhook/STRIPE", "/1/webhook/stripe%20"):
        answer = await world.http.post(path, content=b"{}")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_webhook_provider")


async def test_no_body_is_said_to_be_missing(world: World) -> None:
    assert await post(world, b"", signed("")) == (400, "missing_webhook_body")


class TestForgeries:
    async def refused(self, world: World, body: bytes, headers: dict[str, Any]) -> None:
        assert await post(world, body, headers) == (400, "invalid_webhook_payload")
        assert world.services.heard == []

    async def test_of_signatures(self, world: World) -> None:
        body = json.dumps(event()).encode()
        good = signed(body)["stripe-signature"]
        moment, _, signature = good.partition(",")
        for forged in (
            "",
            "nonsense",
            "t=,v1=",
            "t=x,v1=y",
            "=,=,=",
            ",,,,",
            moment,
            signature,
            good.replace("v1=", "v0="),
            good[:-1] + ("0" if good[-1] != "0" else "1"),
            f"{moment},v1=",
            f"t={2**70},{signature}",
            f"t={'9' * 5000},{signature}",
            f"t=-1,{signature}",
            signed(body, "whsec_of_somebody_else")["stripe-signature"],
            signed(body, "")["stripe-signature"],
        ):
            await self.refused(world, body, {"stripe-signature": forged})
        await self.refused(world, body, {})
        await self.refused(world, body, {"stripe-signature": good.encode() + b",v1=\xe9\xff"})

    async def test_of_the_body(self, world: World) -> None:
        body = json.dumps(event()).encode()
        await self.refused(world, body + b" ", signed(body))
        await self.refused(world, body.replace(b"cus_1", b"cus_2"), signed(body))
        await self.refused(world, b"\xff\xfe", signed(body))

    async def test_of_the_time(self, world: World) -> None:
        body = json.dumps(event()).encode()
        for off in (-301, 302, -86_400, 365 * 86_400):
            await self.refused(world, body, signed(body, at=time.time() + off))

    @pytest.mark.parametrize(
        "body",
        [
            *("[]", "null", "1", "x", "{", "{}", "[" * 5000, '{"a":' * 5000, '"text"', "\ufeff{}"),
            json.dumps([event()]),
            json.dumps(event(id="")),
            json.dumps(event(id=None)),
            json.dumps(event(livemode="false")),
            json.dumps(event(livemode=0)),
            json.dumps(event(data=[])),
            json.dumps(event(data={"object": "sub_1"})),
            json.dumps({"id": "evt_1", "object": "v2.core.event", "type": "v1.billing.meter.no_meter_found"}),
            '{"id": "evt_\\ud800"}',
        ],
    )
    async def test_a_signed_body_that_is_no_event(self, world: World, body: str) -> None:
        await self.refused(world, body.encode(), signed(body))

    async def test_an_event_of_the_other_mode(self, world: World) -> None:
        body = json.dumps(event(livemode=True)).encode()
        await self.refused(world, body, signed(body))


async def test_one_valid_signature_among_others_is_enough(world: World) -> None:
    body = json.dumps(event()).encode()
    moment, _, signature = signed(body)["stripe-signature"].partition(",")
    header = f"{moment},v0=abc,v1={'0' * 64},{signature}"
    assert (await post(world, body, {"stripe-signature": header}))[0] == 200


async def test_times_within_the_tolerance_are_taken(world: World) -> None:
    body = json.dumps(event()).encode()
    for off in (-290, 290):
        assert (await post(world, body, signed(body, at=time.time() + off)))[0] == 200


async def test_a_body_too_large_for_a_message_is_refused_and_a_large_one_is_not(world: World) -> None:
    for padding, status in ((500_000, 200), (530_000, 413)):
        body = json.dumps(event(padding="x" * padding)).encode()
        assert (await post(world, body, signed(body)))[0] == status


async def test_stripe_is_told_to_repeat_when_kafka_does_not_take_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: Any) -> None:
        raise BusDown("gone")

    monkeypatch.setattr(world.gateway._producer, "send", down)
    body = json.dumps(event()).encode()
    answer = await world.http.post(PATH, content=body, headers=signed(body))
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"]
