"""Stripe's events: signed by Stripe, stored as they came, before anybody is told so."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from stripe import WebhookSignature

from services.gateway.settings import GatewaySettings
from shared.bus.producer import BusDown
from shared.messages.billing.stripe_events import StripeEvent, StripeThinEvent
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


def thin(**changed: Any) -> dict[str, Any]:
    return {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v1.payment_intent.succeeded",
        "created": "2026-11-21T06:05:00.000Z",
        "livemode": False,
        "context": None,
        "reason": None,
        "related_object": {"id": "pi_1", "type": "payment_intent", "url": "/v1/payment_intents/pi_1"},
        "snapshot_event": "evt_1",
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
    await eventually(lambda: len(world.services.received) >= count, what="events on Kafka")


@pytest.mark.parametrize("secret", WEBHOOK_SECRETS)
async def test_an_event_is_stored_byte_for_byte(world: World, secret: str) -> None:
    body = json.dumps(event(), indent=2, ensure_ascii=False).encode() + b"\n"
    answer = await world.http.post(PATH, content=body, headers=signed(body, secret))
    assert (answer.status_code, answer.json()) == (200, {"received": True})
    await heard(world, 1)
    stored = world.services.received[0]
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
    ids = [stored.id for stored in world.services.received]
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
    stored = world.services.received[0]
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
        assert world.services.received == []

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
            json.dumps(thin(livemode=None)),
            json.dumps({name: value for name, value in thin().items() if name != "livemode"}),
            json.dumps(thin(livemode=0)),
            json.dumps(thin(id="")),
            json.dumps(thin(object="v3.core.event")),
            json.dumps(thin(object=None)),
            json.dumps(thin(related_object="pi_1")),
            json.dumps(thin(related_object=["pi_1"])),
            json.dumps(event(object="v2.core.event", livemode="x")),
            # The envelopes of other clouds, which the library opens by itself.
            json.dumps({"detail": event()}),
            json.dumps({"specversion": "1.0", "data": event()}),
            '{"id": "evt_\\ud800"}',
        ],
    )
    async def test_a_signed_body_that_is_no_event(self, world: World, body: str) -> None:
        await self.refused(world, body.encode(), signed(body))

    @pytest.mark.parametrize("of_live_mode", [event(livemode=True), thin(livemode=True)])
    async def test_an_event_of_the_other_mode(self, world: World, of_live_mode: dict[str, Any]) -> None:
        body = json.dumps(of_live_mode).encode()
        await self.refused(world, body, signed(body))

    async def test_a_signature_of_another_body(self, world: World) -> None:
        signature = signed(json.dumps(event()))
        # Another event under the signature of one that was really sent.
        await self.refused(world, json.dumps(event(id="evt_2")).encode(), signature)

    async def test_a_signature_of_another_time(self, world: World) -> None:
        body = json.dumps(event()).encode()
        old = signed(body, at=time.time() - 3600)["stripe-signature"]
        now = f"t={int(time.time())}"
        forged = ",".join([now, old.partition(",")[2]])
        await self.refused(world, body, {"stripe-signature": forged})
        # Two times: what the signature covers is what counts.
        await self.refused(world, body, {"stripe-signature": f"{old},{now}"})
        await self.refused(world, body, {"stripe-signature": f"{now},{old}"})

    async def test_ten_megabytes(self, world: World) -> None:
        # Refused by what the head says, before the body is sent.
        reader, writer = await asyncio.open_connection("127.0.0.1", world.gateway.port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nhost: nest.test\r\ncontent-length: 10000000\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b'"body_too_large"' in answer
        assert world.services.received == []


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


class TestThinEvents:
    async def test_one_is_stored_byte_for_byte_under_its_object(self, world: World) -> None:
        body = json.dumps(thin(), indent=2).encode()
        assert await post(world, body, signed(body)) == (200, "received")
        await heard(world, 1)
        stored = world.services.received[0]
        assert (stored.topic, stored.wire, stored.key) == ("stripe.webhooks", "stripe.thin-event", "pi_1")
        assert stored.body == body
        read = StripeThinEvent.model_validate_json(stored.body)
        assert (read.type, read.snapshot_event) == ("v1.payment_intent.succeeded", "evt_1")
        assert read.related_object is not None
        assert (read.related_object.type, read.related_object.id) == ("payment_intent", "pi_1")

    @pytest.mark.parametrize("related", [None, {"type": "balance_settings", "url": "/v1/balance_settings"}])
    async def test_one_about_nothing_that_has_an_id_is_ordered_by_its_own(
        self, world: World, related: dict[str, str] | None
    ) -> None:
        body = json.dumps(thin(related_object=related)).encode()
        assert (await post(world, body, signed(body)))[0] == 200
        await heard(world, 1)
        assert world.services.received[0].key == world.services.received[0].id

    async def test_a_repeat_has_the_id_of_the_first_and_another_accounts_has_not(self, world: World) -> None:
        for each in (thin(), thin(), thin(context="acct_1"), thin(context="acct_1/acct_2"), thin(id="evt_test_2")):
            body = json.dumps(each).encode()
            assert (await post(world, body, signed(body)))[0] == 200
        await heard(world, 5)
        assert len({stored.id for stored in world.services.received}) == 4


@pytest.mark.parametrize("unheard_of", [event(type="v1.of.tomorrow"), thin(type="v9.of.tomorrow")])
async def test_a_type_that_nobody_knows_is_received(world: World, unheard_of: dict[str, Any]) -> None:
    body = json.dumps(unheard_of).encode()
    assert await post(world, body, signed(body)) == (200, "received")


async def test_which_secret_matched_is_counted(world: World) -> None:
    def counts() -> list[float]:
        found = (REGISTRY.get_sample_value("nest_webhook_signatures_total", {"secret": s}) for s in ("0", "1", "none"))
        return [count or 0.0 for count in found]

    before = counts()
    body = json.dumps(event()).encode()
    for secret in (*WEBHOOK_SECRETS, WEBHOOK_SECRETS[1], "whsec_of_somebody_else"):
        await post(world, body, signed(body, secret))
    assert [after - first for after, first in zip(counts(), before, strict=True)] == [1, 2, 1]


@pytest.mark.parametrize("secrets", ["", " ", ",", " , "])
def test_no_secret_stops_the_start(make_settings: Callable[..., GatewaySettings], secrets: str) -> None:
    with pytest.raises(ValueError, match="at least one is needed"):
        make_settings(stripe_webhook_secrets=secrets)
