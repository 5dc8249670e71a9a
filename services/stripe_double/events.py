"""Events: snapshot events of changes, the event list, and the bodies of deliveries."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

from services.stripe_double.account import API_VERSION, Account, Json
from services.stripe_double.clock import DAY
from services.stripe_double.errors import resource_missing
from services.stripe_double.params import Params
from services.stripe_double.rendering import list_page, render
from services.stripe_double.versions import at_version

RETENTION = 30 * DAY
"""Older events can be neither listed nor retrieved (docs.stripe.com/api/events)."""
MAX_TYPES = 20
FOLLOWERS: list[Callable[[Account, str, Json, Json | None], None]] = []
"""Functions that are called after each event, with its type, its object and the object before the change."""


def emit(account: Account, event_type: str, subject: Json, *, before: Json | None = None) -> Json:
    """Record an event about an object in its present state; return the event.

    Args:
        account: The account; a change must be open.
        event_type: Stripe's name of the event, for example `customer.subscription.updated`.
        subject: The stored object.
        before: The object before the change; members that differ become `previous_attributes`.
    """
    data: Json = {"object": render(account, subject)}
    if before is not None:
        data["previous_attributes"] = previous_attributes(render(account, before), data["object"])
    request = account.request
    event = account.new(
        "event",
        api_version=API_VERSION,
        data=data,
        pending_webhooks=0,
        request={
            "id": request.id if request else None,
            "idempotency_key": request.idempotency_key if request else None,
        },
        type=event_type,
    )
    account.record_event(event)
    for follow in FOLLOWERS:
        follow(account, event_type, subject, before)
    return event


def emit_if_changed(account: Account, event_type: str, before: Json, after: Json) -> Json:
    """Record an event if a public member of an object has changed; return the object."""
    if render(account, before) != render(account, after):
        emit(account, event_type, after, before=before)
    return after


def previous_attributes(before: Json, after: Json) -> Json:
    """Return the former values of the members that differ: objects member by member, lists as a whole."""
    changes: Json = {}
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        both_objects = isinstance(old, dict) and isinstance(new, dict)
        changes[name] = previous_attributes(old, new) if both_objects else old  # type: ignore[arg-type]
    return changes


def retrieve_event(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/events/{id}."""
    params.reject_unknown()
    event = account.get("event", identifier)
    if event["created"] < account.now - RETENTION:
        raise resource_missing("event", identifier)
    return event


def list_events(account: Account, params: Params) -> Json:
    """GET /v1/events: `type` (with `*`), `types`, `delivery_success`, `created` and cursors."""
    event_type, event_types = params.string("type"), params.strings("types")
    if event_type and event_types:
        raise params.invalid("types", "You may only specify one of these: type, types.")
    if len(event_types) > MAX_TYPES:
        raise params.invalid("types", "You may only specify up to 20 types.")
    delivered = params.boolean("delivery_success")
    oldest = account.now - RETENTION
    events = [
        event
        for event in account.all("event")
        if event["created"] >= oldest
        and (event_type is None or matches(event_type, event["type"]))
        and (not event_types or event["type"] in event_types)
        and (delivered is None or delivered is not bool(account.owned("_delivery", event["id"])))
    ]
    # An event that is delivered between two pages drops out of `delivery_success=false`, yet is a valid cursor.
    return list_page(account, params, "/v1/events", events, cursors=account.all("event"))


def matches(pattern: str, event_type: str) -> bool:
    """Return whether an event type matches a pattern, in which a final `*` stands for any text."""
    if pattern.endswith("*"):
        return event_type.startswith(pattern[:-1])
    return pattern == event_type


def snapshot_body(account: Account, event: Json, version: str = API_VERSION) -> bytes:
    """Return the delivery body of a snapshot event, indented as Stripe sends it, for an endpoint of an API version."""
    rendered = render(account, event)
    body = rendered if version == API_VERSION else at_version(rendered, version)
    return json.dumps(body, indent=2, ensure_ascii=False).encode()


def thin_body(event: Json) -> bytes:
    """Return the delivery body of the thin event for a snapshot event: the URL of the object, not its members.

    The thin event has an ID of its own, the same for every delivery; `snapshot_event` has the ID of
    the snapshot event (docs.stripe.com/webhooks/migrate-snapshot-to-thin-events).
    """
    subject = event["data"]["object"]
    notification = {
        "id": f"evt_test_{event['id'].removeprefix('evt_')}",
        "object": "v2.core.event",
        "type": f"v1.{event['type']}",
        "created": datetime.fromtimestamp(event["created"], UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        "livemode": False,
        "context": None,
        "reason": _reason(event["request"]),
        "related_object": _related_object(subject) if "id" in subject else None,
        "snapshot_event": event["id"],
    }
    return json.dumps(notification, indent=2).encode()


def _reason(request: Json) -> Json | None:
    return {"type": "request", "request": request} if request["id"] is not None else None


def _related_object(subject: Json) -> Json:
    kind = subject["object"]
    return {"id": subject["id"], "type": kind, "url": f"/v1/{kind}s/{subject['id']}"}
