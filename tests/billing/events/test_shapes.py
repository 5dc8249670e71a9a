"""Events in the shapes of all API versions: handled, never a dead letter."""

import json
from datetime import timedelta
from typing import Any

import pytest

from services.billing.runs.event_replay import parse_event
from services.billing.runs.verification import subjects_of
from shared.messages.billing.runs import ReconcileSubscriptions, SweepStripeEvents
from shared.messages.billing.stripe_events import StripeEvent, StripeThinEvent
from tests.billing.conftest import ADA, Shop
from tests.billing.stripe_runs import finish
from tests.stripe_events import CONNECTED, SHAPES

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
