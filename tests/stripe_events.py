"""Bodies of Stripe's events in the shapes of its API versions (https://docs.stripe.com/changelog)."""

from __future__ import annotations

from typing import Any, Final


def _event(object: dict[str, Any] | None = None, type: str = "a.type", **changed: Any) -> dict[str, Any]:  # noqa: A002
    return {
        "id": "evt_1",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": 1_790_000_000,
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": type,
        "data": {"object": object or {"object": "x", "id": "x_1"}},
        **changed,
    }


_UPCOMING: Final = {"object": "invoice", "billing_reason": "upcoming", "customer": "cus_1", "subscription": "sub_1"}
_SUBSCRIPTION_2018: Final = {
    "id": "sub_1",
    "object": "subscription",
    "billing": "charge_automatically",
    "current_period_start": 1_517_000_000,
    "current_period_end": 1_519_000_000,
    "customer": "cus_1",
    "discount": None,
    "items": {"object": "list", "data": [{"id": "si_1", "object": "subscription_item", "plan": {"id": "gold"}}]},
    "plan": {"id": "gold", "object": "plan", "name": "Gold", "statement_descriptor": None},
    "start": 1_517_000_000,
    "tax_percent": None,
    "status": "active",
}
SHAPES: Final[dict[str, dict[str, Any]]] = {
    "request is a string, before 2017-05-25": _event(request="req_1", api_version="2017-04-06"),
    "request is null": _event(request=None, api_version="2015-07-28"),
    "api_version is null": _event(api_version=None),
    "request is missing": {name: value for name, value in _event().items() if name != "request"},
    "object is missing": {name: value for name, value in _event().items() if name != "object"},
    "created is missing": {name: value for name, value in _event().items() if name != "created"},
    "created is null": _event(created=None),
    "created is not a time": _event(created=10**17),
    "account is null": _event(account=None),
    "previous attributes of an array, before 2017-05-25": _event(
        _SUBSCRIPTION_2018,
        "customer.subscription.updated",
        data={"object": _SUBSCRIPTION_2018, "previous_attributes": {"items": {"data": [{"plan": None}]}}},
    ),
    "upcoming invoice without id": _event(_UPCOMING, "invoice.upcoming"),
    "upcoming invoice with id null": _event({**_UPCOMING, "id": None}, "invoice.upcoming"),
    "upcoming invoice since 2025-03-31.basil": _event({**_UPCOMING, "id": "upcoming_in_1"}, "invoice.upcoming"),
    "balance without id": _event({"object": "balance", "available": [], "livemode": False}, "balance.available"),
    "object without anything": _event(data={"object": {}}),
    "object type is null": _event({"object": None, "id": "x_1"}),
    "id is a number": _event({"object": "x", "id": 7}),
    "followed type without id": _event({"object": "subscription"}, "customer.subscription.updated"),
    "followed type with id null": _event({"object": "charge", "id": None}, "charge.refunded"),
    "subscription of 2018": _event(
        _SUBSCRIPTION_2018, "customer.subscription.updated", api_version="2018-02-28", request="req_1"
    ),
    "customer expanded": _event(
        {"id": "in_1", "object": "invoice", "customer": {"id": "cus_1", "object": "customer"}}, "invoice.paid"
    ),
    "deleted object": _event({"id": "cus_1", "object": "customer", "deleted": True}, "customer.deleted"),
    "charge without a payment intent, before 2018-07-27": _event(
        {"id": "ch_1", "object": "charge", "customer": "cus_1"}, "charge.refunded", api_version="2018-05-21"
    ),
    "legacy order": _event({"id": "or_1", "object": "order", "items": []}, "order.created"),
    "type with a prefix of a preview": _event({"id": "x_1", "object": "x"}, "preview.thing.created"),
    "thin event without an object": {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v2.core.account.updated",
        "created": "2026-11-21T06:05:00.000Z",
        "livemode": False,
    },
    "thin event with an object without id": {
        "id": "evt_test_1",
        "object": "v2.core.event",
        "type": "v1.balance.available",
        "created": "2026-11-21T06:05:00.000Z",
        "livemode": False,
        "context": None,
        "related_object": {"id": None, "type": "balance", "url": "/v1/balance"},
    },
}
"""Events of our own account, by what is special about them."""
CONNECTED: Final[dict[str, dict[str, Any]]] = {
    "account": _event(account="acct_1"),
    "user_id, before 2017-05-25": _event(user_id="acct_1", request="req_1"),
    "context": _event(context="acct_1"),
}
"""Events of connected accounts, by the field that names the account."""
