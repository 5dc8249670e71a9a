"""Meters and meter events of the Stripe double."""

import pytest
import stripe

from tests.stripe_double.shop import Shop

METER = {"display_name": "API calls", "event_name": "api_calls", "default_aggregation": {"formula": "sum"}}


async def send(shop: Shop, customer: str, value: str, identifier: str, **changed: object) -> stripe.billing.MeterEvent:
    payload = {"stripe_customer_id": customer, "value": value}
    params = {"event_name": "api_calls", "payload": payload, "identifier": identifier, **changed}
    return await shop.api.billing.meter_events.create_async(params)  # type: ignore[arg-type]


@pytest.mark.parametrize(("formula", "total"), [("sum", 12.0), ("count", 2.0), ("last", 7.0)])
async def test_a_meter_aggregates_its_events_by_customer_and_time(shop: Shop, formula: str, total: float) -> None:
    meter = await shop.api.billing.meters.create_async({**METER, "default_aggregation": {"formula": formula}})  # type: ignore[arg-type]
    ada, bob = await shop.customer(), await shop.customer()
    now = shop.double.account.now
    await send(shop, ada.id, "5", "1", timestamp=now - 10)
    await send(shop, ada.id, "7", "2", timestamp=now - 5)
    await send(shop, ada.id, "100", "3", timestamp=now - 5000)
    await send(shop, bob.id, "1000", "4", timestamp=now - 1)
    summaries = await shop.api.billing.meters.event_summaries.list_async(
        meter.id, {"customer": ada.id, "start_time": now - 100, "end_time": now}
    )
    assert [summary.aggregated_value for summary in summaries.data] == [total]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"timestamp": -36 * 86_400}, "timestamp_too_far_in_past"),
        ({"timestamp": 301}, "timestamp_in_future"),
        ({"event_name": "other"}, "no_meter"),
        ({"identifier": "seen"}, "duplicate_meter_event"),
    ],
)
async def test_a_meter_event_is_refused_at_once(shop: Shop, changed: dict[str, object], code: str) -> None:
    await shop.api.billing.meters.create_async(METER)  # type: ignore[arg-type]
    customer = await shop.customer()
    await send(shop, customer.id, "1", "seen")
    if isinstance(changed.get("timestamp"), int):
        changed = {"timestamp": shop.double.account.now + changed["timestamp"]}  # type: ignore[operator]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await send(shop, customer.id, "1", **{"identifier": "new", **changed})  # type: ignore[arg-type]
    assert caught.value.code == code


async def test_usage_of_an_unknown_customer_or_without_a_number_does_not_count(shop: Shop) -> None:
    meter = await shop.api.billing.meters.create_async(METER)  # type: ignore[arg-type]
    customer = await shop.customer()
    await send(shop, "cus_none", "1", "1")
    await send(shop, customer.id, "much", "2")
    now = shop.double.account.now
    summaries = await shop.api.billing.meters.event_summaries.list_async(
        meter.id, {"customer": customer.id, "start_time": now - 100, "end_time": now + 1}
    )
    assert [summary.aggregated_value for summary in summaries.data] == [0]


async def test_a_meter_is_deactivated_and_its_name_is_free_again(shop: Shop) -> None:
    meter = await shop.api.billing.meters.create_async(METER)  # type: ignore[arg-type]
    with pytest.raises(stripe.InvalidRequestError, match="already an active meter"):
        await shop.api.billing.meters.create_async(METER)  # type: ignore[arg-type]
    assert (await shop.api.billing.meters.deactivate_async(meter.id)).status == "inactive"
    await shop.api.billing.meters.create_async(METER)  # type: ignore[arg-type]
    assert [each.id for each in (await shop.api.billing.meters.list_async({"status": "inactive"})).data] == [meter.id]
    assert "billing.meter.deactivated" in shop.types()
