"""What has happened in the account? Snapshot events, and the list of them."""

from services.stripe_double.account import API_VERSION, Account, Json
from services.stripe_double.clock import DAY
from services.stripe_double.errors import missing
from services.stripe_double.listing import page
from services.stripe_double.params import Params
from services.stripe_double.presentation import present

RETENTION = 30 * DAY
"""Older events are neither listed nor found (docs.stripe.com/api/events)."""
MAX_TYPES = 20


def emit(account: Account, kind: str, subject: Json, *, before: Json | None = None) -> Json:
    """Announces what happened to an object, as it is now; returns the event.

    Args:
        account: Where; a change must be open.
        kind: Stripe's name of the event, for example `customer.subscription.updated`.
        subject: The object as stored.
        before: The object as it was; what differs becomes `previous_attributes`.
    """
    data: Json = {"object": present(account, subject)}
    if before is not None:
        data["previous_attributes"] = difference(present(account, before), data["object"])
    cause = account.request
    event = account.new(
        "event",
        api_version=API_VERSION,
        data=data,
        pending_webhooks=0,
        request={
            "id": cause.id if cause else None,
            "idempotency_key": cause.idempotency_key if cause else None,
        },
        type=kind,
    )
    account.note(event)
    return event


def changed(account: Account, kind: str, before: Json, after: Json) -> Json:
    """Announces a change of an object unless nothing that Stripe shows has changed; returns the object."""
    if present(account, before) != present(account, after):
        emit(account, kind, after, before=before)
    return after


def difference(before: Json, after: Json) -> Json:
    """Returns the old values of what differs; objects member by member, lists whole."""
    changes: Json = {}
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        both_objects = isinstance(old, dict) and isinstance(new, dict)
        changes[name] = difference(old, new) if both_objects else old  # type: ignore[arg-type]
    return changes


def retrieve(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/events/{id}."""
    params.finish()
    event = account.get("event", identifier)
    if event["created"] < account.now - RETENTION:
        raise missing("event", identifier)
    return event


def listed(account: Account, params: Params) -> Json:
    """GET /v1/events: `type` (with `*`), `types`, `delivery_success`, `created` and cursors."""
    kind, kinds = params.text("type"), params.texts("types")
    if kind and kinds:
        raise params.refuse("types", "You may only specify one of these: type, types.")
    if len(kinds) > MAX_TYPES:
        raise params.refuse("types", "You may only specify up to 20 types.")
    delivered = params.flag("delivery_success")
    oldest = account.now - RETENTION
    events = [
        event
        for event in account.all("event")
        if event["created"] >= oldest
        and (kind is None or matches(kind, event["type"]))
        and (not kinds or event["type"] in kinds)
        and (delivered is None or delivered is not bool(account.owned("_delivery", event["id"])))
    ]
    # An event whose delivery succeeds between two pages has left the list of those that failed.
    return page(account, params, "/v1/events", events, among=account.all("event"))


def matches(pattern: str, kind: str) -> bool:
    """Tells whether an event's type is the pattern's, `*` standing for any rest."""
    if pattern.endswith("*"):
        return kind.startswith(pattern[:-1])
    return pattern == kind
