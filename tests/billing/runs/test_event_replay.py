"""Sweep of events that Stripe could not deliver, and replay of events."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.stripe_double import DeliveryFaults
from shared.ids import derived_message_id
from shared.messages.billing.runs import ReconcileSubscriptions, ReplayStripeEvents, SweepStripeEvents
from shared.messages.billing.stripe_events import StripeEvent
from shared.messages.mailer.mails import SendMail
from tests.billing.conftest import Shop
from tests.billing.stripe_runs import finish
from tests.service_harness import Refused

VERIFY = ReconcileSubscriptions(repair=False)


def lose_webhooks(shop: Shop) -> int:
    """Lose all further webhooks; returns the number of events before."""
    shop.double.webhooks.secrets = ["whsec_lost"]
    shop.double.webhooks.faults = DeliveryFaults(loss_rate=1.0)
    return len(shop.double.objects("event"))


def swept(shop: Shop) -> list[StripeEvent]:
    events: list[StripeEvent] = shop.harness.published_of(StripeEvent)
    return events


async def deliver_swept(shop: Shop) -> None:
    """Deliver the events that a sweep published."""
    for event in swept(shop):
        message_id = derived_message_id("stripe", event.account or "", "test", event.id)
        await shop.harness.deliver(event.model_copy(update={"key": "cus"}), id=message_id)
    await shop.settle()


async def test_a_sweep_after_three_days_without_webhooks_handles_each_event_once(shop: Shop) -> None:
    await shop.read_catalog()
    known = lose_webhooks(shop)
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    other = shop.double.simulate.checkout(shop.price, email="eve@example.com")
    shop.double.simulate.dispute(made["id"])
    await shop.double.clock.advance(timedelta(days=1))
    trial = shop.double.simulate.checkout(shop.price, email="bob@example.com", trial_days=14)
    await shop.double.clock.advance(timedelta(days=1))
    shop.double.simulate.cancel(made["id"])
    shop.double.simulate.refund(other["id"])
    await shop.double.clock.advance(timedelta(days=1))
    shop.double.simulate.cancel(trial["id"], at="now")
    missed = [event["id"] for event in shop.double.objects("event")[known:]]

    done = await finish(shop, SweepStripeEvents())
    await deliver_swept(shop)

    assert sorted(event.id for event in swept(shop)) == sorted(missed)
    assert done["counts"] == {"events": len(missed), "known": 0, "handed_over": len(missed)}
    rows = await shop.event_rows()
    assert sorted(row["stpEventId"] for row in rows) == sorted(missed)
    assert all(row["handledAt"] is not None for row in rows)
    assert (await finish(shop, VERIFY))["differences"] == 0
    mails = shop.mails()

    again = await finish(shop, SweepStripeEvents())
    await deliver_swept(shop)

    assert again["counts"] == {"events": len(missed), "known": len(missed), "handed_over": 0}
    assert shop.mails() == mails
    assert sorted(template for template, _ in mails) == ["trial-ended", "welcome", "welcome", "welcome-trial"]


async def test_a_webhook_that_arrives_after_its_sweep_is_handled_once(shop: Shop) -> None:
    known = lose_webhooks(shop)
    shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await finish(shop, SweepStripeEvents())
    await deliver_swept(shop)
    published, rows = list(shop.harness.published), await shop.event_rows()
    for event in shop.double.objects("event")[known:]:
        # The webhook has the message ID of the swept event and a larger body.
        with pytest.raises(Refused, match="idempotency_key_reused"):
            await shop.deliver(event)
    assert shop.harness.published == published
    assert await shop.event_rows() == rows


async def test_all_pages_of_undelivered_events_are_swept(shop: Shop) -> None:
    known = lose_webhooks(shop)
    for number in range(30):
        shop.double.simulate.checkout(shop.price, email=f"{number}@example.com")
    missed = len(shop.double.objects("event")) - known
    assert missed > 200
    done = await finish(shop, SweepStripeEvents())
    assert done["counts"]["handed_over"] == missed


async def test_a_handled_event_is_replayed_by_its_id(shop: Shop) -> None:
    made = shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.deliver_all()
    await shop.harness.database["subscriptions"].update_one(
        {}, {"$set": {"status": "past_due"}, "$inc": {"version": 1}}
    )
    [event] = [each for each in shop.events_of(made["id"]) if each["type"].endswith("created")]

    for _ in range(2):
        done = await finish(shop, ReplayStripeEvents(event_ids=(event["id"], "evt_none")))
        assert done["counts"] == {"events": 1, "missing": 1}
        assert (await shop.record(made["id"]))["status"] == "active"

    [row] = [each for each in await shop.event_rows() if each["stpEventId"] == event["id"]]
    assert row["outcome"] == "read"
    assert len(shop.harness.published_of(SendMail)) == 1


async def test_events_are_replayed_by_type_and_time(shop: Shop) -> None:
    shop.double.simulate.checkout(shop.price, email="ada@example.com")
    await shop.deliver_all()
    chosen: dict[str, Any] = {"types": ("customer.subscription.*",), "since": datetime.now(UTC) - timedelta(days=1)}
    subscriptions = [each for each in shop.double.objects("event") if each["type"].startswith("customer.subscription.")]

    assert (await finish(shop, ReplayStripeEvents(**chosen)))["counts"] == {"events": len(subscriptions)}

    chosen["until"] = datetime.now(UTC) - timedelta(hours=1)
    assert (await finish(shop, ReplayStripeEvents(**chosen)))["counts"] == {"events": 0}
    stored = ReplayStripeEvents(types=("customer.subscription.created",), kept=True)
    assert (await finish(shop, stored))["counts"] == {"events": 1}
