"""Events in the shapes of all API versions: handled, never a dead letter."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.billing.events.handlers import EVENT_HANDLERS
from services.billing.events.models import EventRow
from services.billing.runs.event_replay import parse_event
from services.billing.runs.verification import subjects_of
from shared.messages import MESSAGES
from shared.messages.billing.runs import ReconcileSubscriptions, SweepStripeEvents
from shared.messages.billing.stripe_events import StripeEvent, StripeThinEvent, parse_stripe_event
from tests.billing.conftest import ADA, Shop
from tests.billing.stripe_runs import finish
from tests.stripe_events import CONNECTED, SHAPES

NOW = datetime(2026, 11, 28, tzinfo=UTC)
ODD_VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["x" * 300, "x" * 1_100, "cus_1", "event", "v2.core.event", "\x00"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "object", "x"]), inner),
    max_leaves=4,
)
EVENT_FIELDS = ("id", "object", "type", "livemode", "created", "account", "context", "user_id", "key", "data")
OBJECT_FIELDS = ("id", "object", "customer")
FOLLOWED = {"customer.subscription.updated", "charge.refunded"}


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_event_of_any_shape_is_settled(shape: str, shop: Shop) -> None:
    event = SHAPES[shape]
    thin = event.get("object") == "v2.core.event"
    kind: Any = StripeThinEvent if thin else StripeEvent
    message = kind.model_validate({**event, "key": "k"})
    await shop.harness.deliver(message, body=json.dumps(event).encode())
    await shop.settle()
    (row,) = await shop.event_rows()
    followed = event["type"] in FOLLOWED and bool(row["objectId"])
    assert row["outcome"] in (("missing", "read") if followed else ("not_followed",))


@given(
    shape=st.sampled_from([*SHAPES.values(), *CONNECTED.values()]),
    changed=st.dictionaries(st.sampled_from([*EVENT_FIELDS, "related_object"]), ODD_VALUES, max_size=2),
    of_object=st.dictionaries(st.sampled_from(OBJECT_FIELDS), ODD_VALUES, max_size=2),
)
def test_billing_handles_every_body_that_the_gateway_accepts(
    shape: dict[str, Any], changed: dict[str, Any], of_object: dict[str, Any]
) -> None:
    body = {**shape, **changed}
    if isinstance(body.get("data"), dict) and isinstance(body["data"].get("object"), dict):
        body["data"] = {"object": {**body["data"]["object"], **of_object}}
    raw = json.dumps(body).encode()
    try:
        accepted = parse_stripe_event(raw)
    except ValidationError:
        return
    decoded = MESSAGES[accepted.wire].model_validate_json(raw)
    assert decoded == accepted
    assert len(accepted.ordering_key) <= 255
    if isinstance(decoded, StripeEvent):
        row = EventRow.of(decoded, at=NOW)
        if row.object_id:
            assert {handler(row).event_id for handler in EVENT_HANDLERS.values()} == {row.id}


ODD_BODIES: dict[str, tuple[dict[str, Any], bool]] = {
    "id of the object is null": ({"data": {"object": {"object": "charge", "id": None}}}, True),
    "type of the object is null": ({"data": {"object": {"object": None, "id": "x_1"}}}, True),
    "created is a float": ({"created": 1_790_000_000.5}, True),
    "created is null": ({"created": None}, True),
    "created is a text": ({"created": "2026-11-21T06:05:00Z"}, True),
    "a field key": ({"key": {"id": 1}}, True),
    "id of the event is null": ({"id": None}, False),
    "id of the event is empty": ({"id": ""}, False),
    "id of 256 characters": ({"id": "x" * 256}, False),
    "id of the object of 256 characters": ({"data": {"object": {"object": "x", "id": "x" * 256}}}, False),
    "livemode is a text": ({"livemode": "false"}, False),
    "livemode is a number": ({"livemode": 0}, False),
    "object is null": ({"object": None}, False),
    "no data": ({"data": None}, False),
}


@pytest.mark.parametrize("name", ODD_BODIES)
def test_gateway_and_billing_accept_and_refuse_the_same_bodies(name: str) -> None:
    changed, accepted = ODD_BODIES[name]
    raw = json.dumps({**SHAPES["api_version is null"], **changed}).encode()
    for parse in (parse_stripe_event, StripeEvent.model_validate_json):
        if accepted:
            parse(raw)
        else:
            with pytest.raises(ValidationError):
                parse(raw)


UNKNOWN_OBJECTS: dict[str, dict[str, Any]] = {
    "customer.subscription.updated": {"object": "subscription", "id": "sub_none"},
    "subscription_schedule.updated": {"object": "subscription_schedule", "id": "sub_sched_none"},
    "payment_intent.succeeded": {"object": "payment_intent", "id": "pi_none"},
    "charge.refunded": {"object": "charge", "id": "ch_none"},
    "refund.updated": {"object": "refund", "id": "re_none"},
    "invoice.payment_failed": {"object": "invoice", "id": "in_none"},
    "invoice_payment.paid": {"object": "invoice_payment", "id": "inpay_none"},
    "charge.dispute.created": {"object": "dispute", "id": "dp_none"},
}


@pytest.mark.parametrize("event_type", UNKNOWN_OBJECTS)
async def test_an_event_about_an_unknown_object_ends_as_missing(event_type: str, shop: Shop) -> None:
    event = {**SHAPES["api_version is null"], "type": event_type, "data": {"object": UNKNOWN_OBJECTS[event_type]}}
    await shop.deliver(event)
    await shop.settle()
    assert [row["outcome"] for row in await shop.event_rows()] == ["missing"]


@pytest.mark.parametrize("field", CONNECTED)
async def test_a_connected_account_is_recognized_in_any_shape(field: str, shop: Shop) -> None:
    event = CONNECTED[field]
    await shop.harness.deliver(StripeEvent.model_validate(event), body=json.dumps(event).encode())
    assert [(row["account"], row["outcome"]) for row in await shop.event_rows()] == [("acct_1", "other_account")]


@pytest.mark.parametrize("shape", [shape for shape, event in SHAPES.items() if "data" in event])
def test_a_listed_event_of_any_shape_is_parsed(shape: str) -> None:
    event = SHAPES[shape]
    assert parse_event(event).type == event["type"]
    assert len(subjects_of(event)) <= 1


@pytest.mark.parametrize("version", ["2026-10-28.endive", "2024-06-20", "2019-09-09", "2018-02-28", "2017-04-06"])
async def test_webhooks_of_any_api_version_end_in_the_same_records(version: str, shop: Shop) -> None:
    shop.double.webhooks.api_version = version
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com", metadata=ADA)
    await shop.double.clock.advance(timedelta(days=30))
    shop.double.simulate.refund(made["id"], amount=100)
    shop.double.simulate.cancel(made["id"], at="now")
    shop.harness.now = shop.double.clock.time
    events = shop.double.objects("event")
    assert "invoice.upcoming" in {event["type"] for event in events}
    for event in events:
        await shop.deliver(json.loads(shop.double.webhooks.payload(event)))
    await shop.settle()
    record = await shop.record(made["id"])
    assert (record["status"], record["userId"]) == ("canceled", "user_ada")
    assert {row["outcome"] for row in await shop.event_rows()} == {"read", "not_followed"}
    for command in (ReconcileSubscriptions(repair=False, changed_within_hours=48), SweepStripeEvents(days=1)):
        run = await finish(shop, command)
        assert (run["status"], run["differences"]) == ("done", 0)
