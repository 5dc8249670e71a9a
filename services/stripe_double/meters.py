"""Meters and meter events: usage that metered prices charge.

Stripe checks the customer and the value of a meter event after it has accepted it, and reports rejected ones with the
thin event `v1.billing.meter.error_report_triggered`
(docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api).
"""

from collections.abc import Callable, Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from services.stripe_double import events
from services.stripe_double.account import Account, Json, random_string
from services.stripe_double.clock import DAY
from services.stripe_double.errors import StripeApiError
from services.stripe_double.params import Params
from services.stripe_double.rendering import list_page

MAX_AGE = 35 * DAY
MAX_AHEAD = 300
UNIQUE_SECONDS = DAY
"""Period in which an identifier is accepted once."""
MAX_NAME = 100
MAX_IDENTIFIER = 100
WINDOWS = {"day": DAY, "hour": 3600}


def create_meter(account: Account, params: Params) -> Json:
    """POST /v1/billing/meters; an event name belongs to one active meter."""
    mapping, value, aggregation = (
        params.nested(name) for name in ("customer_mapping", "value_settings", "default_aggregation")
    )
    if aggregation is None:
        raise params.missing("default_aggregation")
    formula = aggregation.choice("formula", ("count", "last", "sum"))
    if formula is None:
        raise aggregation.missing("formula")
    meter = account.new(
        "billing.meter",
        customer_mapping={
            "event_payload_key": (mapping.string("event_payload_key") if mapping else None) or "stripe_customer_id",
            "type": (mapping.string("type") if mapping else None) or "by_id",
        },
        default_aggregation={"formula": formula},
        display_name=params.required("display_name"),
        event_name=params.required("event_name"),
        event_time_window=params.choice("event_time_window", tuple(WINDOWS)),
        status="active",
        status_transitions={"deactivated_at": None},
        updated=account.now,
        value_settings={"event_payload_key": (value.string("event_payload_key") if value else None) or "value"},
    )
    params.reject_unknown()
    if len(meter["event_name"]) > MAX_NAME:
        raise params.invalid("event_name", "Invalid string: event_name must be at most 100 characters")
    if _active(account, meter["event_name"]) is not None:
        raise params.invalid("event_name", f"There is already an active meter with event name {meter['event_name']}.")
    events.emit(account, "billing.meter.created", account.put(meter))
    return meter


def update_meter(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/billing/meters/{id}: `display_name`."""
    meter = account.get("billing.meter", identifier)
    changes = params.sent_strings(("display_name",))
    params.reject_unknown()
    return events.emit_if_changed(
        account, "billing.meter.updated", meter, account.update(meter, **changes, updated=account.now)
    )


def list_meters(account: Account, params: Params) -> Json:
    """GET /v1/billing/meters: `status`."""
    status = params.choice("status", ("active", "inactive"))
    meters = [meter for meter in account.all("billing.meter") if status in (None, meter["status"])]
    return list_page(account, params, "/v1/billing/meters", meters)


def deactivate_meter(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/billing/meters/{id}/deactivate."""
    return _switch(account, params, identifier, "inactive", "billing.meter.deactivated")


def reactivate_meter(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/billing/meters/{id}/reactivate."""
    return _switch(account, params, identifier, "active", "billing.meter.reactivated")


def create_meter_event(account: Account, params: Params) -> Json:
    """POST /v1/billing/meter_events: refuses what Stripe refuses at once; the rest is checked later."""
    name, identifier = params.required("event_name"), params.string("identifier") or random_string(32)
    timestamp = params.integer("timestamp") or account.now
    payload = params.raw("payload")
    params.reject_unknown()
    if not isinstance(payload, dict) or not payload:
        raise params.missing("payload")
    if len(identifier) > MAX_IDENTIFIER:
        raise params.invalid("identifier", "Invalid string: identifier must be at most 100 characters")
    if timestamp < account.now - MAX_AGE:
        raise params.invalid(
            "timestamp", "The timestamp must be within the past 35 calendar days.", "timestamp_too_far_in_past"
        )
    if timestamp > account.now + MAX_AHEAD:
        raise params.invalid("timestamp", "The timestamp must not be more than 5 minutes ahead.", "timestamp_in_future")
    meter = _active(account, name)
    if meter is None:
        raise params.invalid("event_name", f"No active meter found for event name {name}.", "no_meter")
    seen = account.find("_meter_event", identifier)
    if seen is not None and seen["created"] > account.now - UNIQUE_SECONDS:
        raise StripeApiError(
            f"An event already exists with identifier {identifier}.", code="duplicate_meter_event", param="identifier"
        )
    event = {
        "object": "billing.meter_event",
        "created": account.now,
        "event_name": name,
        "identifier": identifier,
        "livemode": False,
        "payload": payload,
        "timestamp": timestamp,
    }
    error = _asynchronous_error(account, meter, payload)
    stored = f"{identifier}:{account.now}" if seen is not None else identifier
    account.put(
        {**event, "object": "_meter_event", "id": stored, "customer": None, "_error": error, "_meter": meter["id"]}
    )
    return event


def usage_between(account: Account, meter_id: str, customer: str, start: int, end: int) -> Decimal:
    """Return the aggregated usage of a customer from `start` until before `end`, in Unix seconds."""
    meter = account.get("billing.meter", meter_id)
    found = [
        event
        for event in account.all("_meter_event")
        if event["_meter"] == meter_id
        and event["_error"] is None
        and event["payload"][meter["customer_mapping"]["event_payload_key"]] == customer
        and start <= event["timestamp"] < end
    ]
    return _aggregate(meter, sorted(found, key=lambda event: (event["timestamp"], event["created"])))


def list_event_summaries(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/billing/meters/{id}/event_summaries: one summary, or one for each hour or day with usage."""
    meter, customer = account.get("billing.meter", identifier), params.required("customer")
    start, end = params.required_integer("start_time"), params.required_integer("end_time")
    grouping = params.choice("value_grouping_window", tuple(WINDOWS))
    step = WINDOWS[grouping] if grouping else max(end - start, 1)
    summaries = [
        {
            "id": f"mtrusg_{identifier}_{at}",
            "object": "billing.meter_event_summary",
            "aggregated_value": float(value),
            "end_time": min(at + step, end),
            "livemode": False,
            "meter": meter["id"],
            "start_time": at,
        }
        for at in range(start, end, step)
        if (value := usage_between(account, identifier, customer, at, min(at + step, end))) or grouping is None
    ]
    return list_page(account, params, f"/v1/billing/meters/{identifier}/event_summaries", summaries)


def _retrieve_meter(account: Account, params: Params, identifier: str) -> Json:
    params.reject_unknown()
    return account.get("billing.meter", identifier)


def _switch(account: Account, params: Params, identifier: str, status: str, event_type: str) -> Json:
    meter = account.get("billing.meter", identifier)
    params.reject_unknown()
    if meter["status"] == status:
        raise StripeApiError(f"The meter is already {status}.")
    deactivated = account.now if status == "inactive" else None
    updated = account.update(
        meter, status=status, status_transitions={"deactivated_at": deactivated}, updated=account.now
    )
    events.emit(account, event_type, updated, before=meter)
    return updated


def _active(account: Account, event_name: str) -> Json | None:
    meters = account.all("billing.meter")
    return next((each for each in meters if each["event_name"] == event_name and each["status"] == "active"), None)


def _asynchronous_error(account: Account, meter: Json, payload: dict[str, Any]) -> str | None:
    """Return Stripe's code for a meter event that it rejects after it has accepted it; None if it counts."""
    customer = payload.get(meter["customer_mapping"]["event_payload_key"])
    found = None if customer is None else account.find("customer", str(customer))
    if found is None or found.get("deleted"):
        return "meter_event_customer_not_found"
    if meter["default_aggregation"]["formula"] == "count":
        return None
    value = payload.get(meter["value_settings"]["event_payload_key"])
    if value is None:
        return "meter_event_no_value"
    try:
        return None if Decimal(str(value)) >= 0 else "meter_event_invalid_value"
    except InvalidOperation:
        return "meter_event_invalid_value"


def _aggregate(meter: Json, found: Iterable[Json]) -> Decimal:
    formula, key = meter["default_aggregation"]["formula"], meter["value_settings"]["event_payload_key"]
    if formula == "count":
        return Decimal(sum(1 for _ in found))
    values = [Decimal(str(event["payload"][key])) for event in found]
    return (values[-1] if values else Decimal(0)) if formula == "last" else sum(values, Decimal(0))


ROUTES: dict[str, Callable[..., Json]] = {
    "GET /v1/billing/meters": list_meters,
    "POST /v1/billing/meters": create_meter,
    "GET /v1/billing/meters/{}": _retrieve_meter,
    "POST /v1/billing/meters/{}": update_meter,
    "POST /v1/billing/meters/{}/deactivate": deactivate_meter,
    "POST /v1/billing/meters/{}/reactivate": reactivate_meter,
    "GET /v1/billing/meters/{}/event_summaries": list_event_summaries,
    "POST /v1/billing/meter_events": create_meter_event,
}
