from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from prometheus_client import REGISTRY
from stripe import WebhookSignature

from shared.bus.producer import BusDown
from shared.messages.billing.stripe_events import StripeEvent, StripeThinEvent
from tests.gateway.conftest import WEBHOOK_SECRETS, GatewayStack
from tests.metrics import increments
from tests.stack import eventually
from tests.stripe_events import CONNECTED, SHAPES

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


async def post(stack: GatewayStack, body: bytes, headers: dict[str, Any]) -> tuple[int, str]:
    """Post to the webhook, and wait for an accepted event, so that it does not arrive in the next test."""
    before = len(stack.services.received)
    response = await stack.http.post(PATH, content=body, headers=headers)
    if response.status_code == 200:
        await events(stack, before + 1)
    return response.status_code, response.json().get("code", "received")


async def events(stack: GatewayStack, count: int) -> None:
    await eventually(lambda: len(stack.services.received) >= count, what="events on Kafka")


@pytest.mark.parametrize("secret", WEBHOOK_SECRETS)
async def test_event_is_published_byte_for_byte(stack: GatewayStack, secret: str) -> None:
    body = json.dumps(event(), indent=2, ensure_ascii=False).encode() + b"\n"
    response = await stack.http.post(PATH, content=body, headers=signed(body, secret))
    assert (response.status_code, response.json()) == (200, {"received": True})
    await events(stack, 1)
    stored = stack.services.received[0]
    assert (stored.topic, stored.wire, stored.key) == ("stripe.webhooks", "stripe.event", "cus_1")
    assert stored.body == body
    assert stored.caller.kind == "service"
    assert stored.reply_to is None
    assert StripeEvent.model_validate_json(stored.body).id == "evt_1"


async def test_repeated_event_has_the_same_message_id(stack: GatewayStack) -> None:
    bodies = [event(), event(), event(id="evt_2"), event(account="acct_1")]
    for each in bodies:
        body = json.dumps(each).encode()
        assert (await post(stack, body, signed(body)))[0] == 200
    await events(stack, 4)
    ids = [stored.id for stored in stack.services.received]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("stripe_object", "key"),
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
async def test_events_of_one_customer_share_an_ordering_key(
    stack: GatewayStack, stripe_object: dict[str, Any], key: str
) -> None:
    body = json.dumps(event(data={"object": stripe_object})).encode()
    assert (await post(stack, body, signed(body)))[0] == 200
    await events(stack, 1)
    stored = stack.services.received[0]
    assert stored.key == (key or stored.id)


@pytest.mark.parametrize("shape", [*SHAPES.values(), *CONNECTED.values()], ids=[*SHAPES, *CONNECTED])
async def test_event_of_any_api_version_is_accepted(stack: GatewayStack, shape: dict[str, Any]) -> None:
    body = json.dumps(shape).encode()
    assert await post(stack, body, signed(body)) == (200, "received")


@pytest.mark.parametrize("connected", [event(livemode=True, account="acct_1"), thin(livemode=True, context="acct_1")])
async def test_event_of_a_connected_account_is_accepted_in_both_modes(
    stack: GatewayStack, connected: dict[str, Any]
) -> None:
    body = json.dumps(connected).encode()
    assert await post(stack, body, signed(body)) == (200, "received")


@pytest.mark.parametrize(
    ("sent", "counted"),
    [
        (event(), ("customer.subscription.updated", "accepted")),
        (thin(), ("payment_intent.succeeded", "accepted")),
        (event(type="customer.created"), ("other", "accepted")),
        (event(type="evt_" + "x" * 200), ("other", "accepted")),
        (event(livemode=True), ("unknown", "invalid_webhook_payload")),
        ({"object": "event"}, ("unknown", "invalid_webhook_payload")),
    ],
)
async def test_an_event_is_counted_by_a_known_type_and_its_outcome(
    stack: GatewayStack, sent: dict[str, Any], counted: tuple[str, str]
) -> None:
    body = json.dumps(sent).encode()
    with increments("nest_webhooks_total") as webhooks:
        await post(stack, body, signed(body))
    assert webhooks == {("stripe", *counted): 1}


async def test_unknown_provider_is_refused(stack: GatewayStack) -> None:
    for path in ("/1/webhook/paypal", "/1/webhook/STRIPE", "/1/webhook/stripe%20"):
        response = await stack.http.post(path, content=b"{}")
        assert (response.status_code, response.json()["code"]) == (404, "unknown_webhook_provider")


async def test_empty_body_is_refused(stack: GatewayStack) -> None:
    assert await post(stack, b"", signed("")) == (400, "missing_webhook_body")


class TestForgeries:
    async def refused(self, stack: GatewayStack, body: bytes, headers: dict[str, Any]) -> None:
        assert await post(stack, body, headers) == (400, "invalid_webhook_payload")
        assert stack.services.received == []

    async def test_forged_signature(self, stack: GatewayStack) -> None:
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
            signed(body, "whsec_unknown")["stripe-signature"],
            signed(body, "")["stripe-signature"],
        ):
            await self.refused(stack, body, {"stripe-signature": forged})
        await self.refused(stack, body, {})
        await self.refused(stack, body, {"stripe-signature": good.encode() + b",v1=\xe9\xff"})

    async def test_changed_body(self, stack: GatewayStack) -> None:
        body = json.dumps(event()).encode()
        await self.refused(stack, body + b" ", signed(body))
        await self.refused(stack, body.replace(b"cus_1", b"cus_2"), signed(body))
        await self.refused(stack, b"\xff\xfe", signed(body))

    async def test_time_outside_the_tolerance(self, stack: GatewayStack) -> None:
        body = json.dumps(event()).encode()
        for off in (-301, 600, -86_400, 365 * 86_400):
            await self.refused(stack, body, signed(body, at=time.time() + off))

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
            # Wrappers of AWS EventBridge and CloudEvents, which the library unwraps.
            json.dumps({"detail": event()}),
            json.dumps({"specversion": "1.0", "data": event()}),
            '{"id": "evt_\\ud800"}',
        ],
    )
    async def test_signed_body_that_is_not_an_event(self, stack: GatewayStack, body: str) -> None:
        await self.refused(stack, body.encode(), signed(body))

    @pytest.mark.parametrize("live_event", [event(livemode=True), thin(livemode=True)])
    async def test_event_of_the_other_mode_of_our_own_account(
        self, stack: GatewayStack, live_event: dict[str, Any]
    ) -> None:
        body = json.dumps(live_event).encode()
        await self.refused(stack, body, signed(body))

    async def test_signature_of_another_event(self, stack: GatewayStack) -> None:
        signature = signed(json.dumps(event()))
        await self.refused(stack, json.dumps(event(id="evt_2")).encode(), signature)

    async def test_signature_with_another_time(self, stack: GatewayStack) -> None:
        body = json.dumps(event()).encode()
        old = signed(body, at=time.time() - 3600)["stripe-signature"]
        now = f"t={int(time.time())}"
        forged = ",".join([now, old.partition(",")[2]])
        await self.refused(stack, body, {"stripe-signature": forged})
        # Two times: the first one is covered by the signature, the other one is not.
        await self.refused(stack, body, {"stripe-signature": f"{old},{now}"})
        await self.refused(stack, body, {"stripe-signature": f"{now},{old}"})

    async def test_body_of_10_mb_is_refused_before_it_is_sent(self, stack: GatewayStack) -> None:
        # Refused because of content-length, before the body is sent.
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nhost: nest.test\r\ncontent-length: 10000000\r\n\r\n".encode())
        response = await asyncio.wait_for(reader.readuntil(b"}"), 30)
        writer.close()
        assert response.startswith(b"HTTP/1.1 413 ")
        assert b'"body_too_large"' in response
        assert stack.services.received == []


async def test_one_valid_signature_among_several_suffices(stack: GatewayStack) -> None:
    body = json.dumps(event()).encode()
    moment, _, signature = signed(body)["stripe-signature"].partition(",")
    header = f"{moment},v0=abc,v1={'0' * 64},{signature}"
    assert (await post(stack, body, {"stripe-signature": header}))[0] == 200


async def test_time_within_the_tolerance_is_accepted(stack: GatewayStack) -> None:
    body = json.dumps(event()).encode()
    for off in (-290, 290):
        assert (await post(stack, body, signed(body, at=time.time() + off)))[0] == 200


async def test_body_over_512_kib_is_refused(stack: GatewayStack) -> None:
    for padding, status in ((500_000, 200), (530_000, 413)):
        body = json.dumps(event(padding="x" * padding)).encode()
        assert (await post(stack, body, signed(body)))[0] == status


async def test_kafka_outage_gives_503(stack: GatewayStack, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: Any) -> None:
        raise BusDown("gone")

    monkeypatch.setattr(stack.gateway._producer, "send", down)
    body = json.dumps(event()).encode()
    response = await stack.http.post(PATH, content=body, headers=signed(body))
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["retry-after"]


class TestThinEvents:
    async def test_event_is_published_byte_for_byte_with_its_object_as_key(self, stack: GatewayStack) -> None:
        body = json.dumps(thin(), indent=2).encode()
        assert await post(stack, body, signed(body)) == (200, "received")
        await events(stack, 1)
        stored = stack.services.received[0]
        assert (stored.topic, stored.wire, stored.key) == ("stripe.webhooks", "stripe.thin-event", "pi_1")
        assert stored.body == body
        read = StripeThinEvent.model_validate_json(stored.body)
        assert (read.type, read.snapshot_event) == ("v1.payment_intent.succeeded", "evt_1")
        assert read.related_object is not None
        assert (read.related_object.type, read.related_object.id) == ("payment_intent", "pi_1")

    @pytest.mark.parametrize("related", [None, {"type": "balance_settings", "url": "/v1/balance_settings"}])
    async def test_event_without_an_object_id_has_its_message_id_as_key(
        self, stack: GatewayStack, related: dict[str, str] | None
    ) -> None:
        body = json.dumps(thin(related_object=related)).encode()
        assert (await post(stack, body, signed(body)))[0] == 200
        await events(stack, 1)
        assert stack.services.received[0].key == stack.services.received[0].id

    async def test_repeated_event_of_one_account_has_the_same_message_id(self, stack: GatewayStack) -> None:
        for each in (thin(), thin(), thin(context="acct_1"), thin(context="acct_1/acct_2"), thin(id="evt_test_2")):
            body = json.dumps(each).encode()
            assert (await post(stack, body, signed(body)))[0] == 200
        await events(stack, 5)
        assert len({stored.id for stored in stack.services.received}) == 4


@pytest.mark.parametrize("unknown_type", [event(type="v1.future.type"), thin(type="v9.future.type")])
async def test_unknown_event_type_is_accepted(stack: GatewayStack, unknown_type: dict[str, Any]) -> None:
    body = json.dumps(unknown_type).encode()
    assert await post(stack, body, signed(body)) == (200, "received")


async def test_matching_secret_is_counted(stack: GatewayStack) -> None:
    def counts() -> list[float]:
        values = (REGISTRY.get_sample_value("nest_webhook_signatures_total", {"secret": s}) for s in ("0", "1", "none"))
        return [count or 0.0 for count in values]

    before = counts()
    body = json.dumps(event()).encode()
    for secret in (*WEBHOOK_SECRETS, WEBHOOK_SECRETS[1], "whsec_unknown"):
        await post(stack, body, signed(body, secret))
    assert [after - first for after, first in zip(counts(), before, strict=True)] == [1, 2, 1]


MALFORMED_SIGNATURES = [
    "",
    "t=%d",
    "v1=%s",
    "t=%d,v1=",
    "t=%d,v1=abc",
    "t=%d,v0=%s",
    "t=x,v1=%s",
    "t=1,v1=%s",
    "t=9999999999,v1=%s",
    "t=%d,v1=%s\u00e4",
]


@pytest.mark.parametrize("signature", MALFORMED_SIGNATURES)
async def test_body_with_a_malformed_signature_is_not_read(stack: GatewayStack, signature: str) -> None:
    header = signature.replace("%d", str(int(time.time()))).replace("%s", "0" * 64)
    head = f"POST {PATH} HTTP/1.1\r\nHost: nest.test\r\nContent-Length: 500000\r\nStripe-Signature: {header}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.gateway.port)
    writer.write(head.encode("latin-1"))
    # No byte of the body was sent.
    response = await asyncio.wait_for(reader.readuntil(b"}"), 10)
    writer.close()
    assert response.startswith(b"HTTP/1.1 400")
    assert b'"invalid_webhook_payload"' in response
