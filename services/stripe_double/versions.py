"""Bodies of events in older API versions: an endpoint keeps the version that it was created with.

Only the changes that a receiver of events may stumble over are reversed (docs.stripe.com/changelog).
"""

from collections.abc import Callable

from services.stripe_double.account import Json


def at_version(event: Json, version: str) -> Json:
    """Return an event as an endpoint of an older API version gets it; its date decides (`2017-04-06`).

    Args:
        event: The rendered event.
        version: The API version of the endpoint.
    """
    older = {**event, "api_version": version, "data": {**event["data"], "object": dict(event["data"]["object"])}}
    for date, reverse in CHANGES.items():
        if version < date:
            reverse(older)
    return older


def _period_on_subscription(event: Json) -> None:
    """Until 2025-03-31.basil the period was the subscription's, and an invoice named its subscription and payment."""
    subject = event["data"]["object"]
    if subject["object"] == "subscription":
        items = [dict(item) for item in subject["items"]["data"]]
        for item in items:
            subject["current_period_start"] = item.pop("current_period_start")
            subject["current_period_end"] = item.pop("current_period_end")
        subject["items"] = {**subject["items"], "data": items}
    elif subject["object"] == "invoice":
        details = (subject.pop("parent", None) or {}).get("subscription_details") or {}
        subject |= {"subscription": details.get("subscription"), "payment_intent": None, "charge": None, "paid": True}


def _start_and_billing(event: Json) -> None:
    """Until 2019-10-17 `start_date` was `start`, and `collection_method` was `billing`."""
    subject = event["data"]["object"]
    for new, old in {"start_date": "start", "collection_method": "billing"}.items():
        if new in subject:
            subject[old] = subject.pop(new)


def _request_as_string(event: Json) -> None:
    """Until 2017-05-25 `request` was the request's ID, and a connected account was the event's `user_id`."""
    event["request"] = event["request"]["id"]
    if "account" in event:
        event["user_id"] = event.pop("account")


CHANGES: dict[str, Callable[[Json], None]] = {
    "2025-03-31.basil": _period_on_subscription,
    "2019-10-17": _start_and_billing,
    "2017-05-25": _request_as_string,
}
"""The version that made a change, and the function that reverses it, newest first."""
