"""How does an object look to the caller? Nested lists cut at ten, and what `expand[]` asks for."""

from collections.abc import Callable
from typing import Any

from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError

NESTED_LIMIT = 10
"""Lists inside objects are cut here; the rest is on the list's own page (docs.stripe.com/expand)."""
MAX_EXPAND_DEPTH = 4

REFERENCES = {
    "charge": "charge",
    "coupon": "coupon",
    "customer": "customer",
    "default_payment_method": "payment_method",
    "default_price": "price",
    "discount": "discount",
    "discounts": "discount",
    "invoice": "invoice",
    "latest_charge": "charge",
    "latest_invoice": "invoice",
    "payment_intent": "payment_intent",
    "payment_method": "payment_method",
    "price": "price",
    "product": "product",
    "promotion_code": "promotion_code",
    "subscription": "subscription",
}
"""Members that hold the id of another object, and of which kind; only these can be expanded."""


def present(account: Account, entry: Json) -> Json:
    """Returns the object as Stripe shows it, without the double's own members."""
    shaped = _SHAPES.get(entry["object"])
    return shaped(account, entry) if shaped else entry


def nested(url: str, entries: list[Json]) -> Json:
    """Returns the list object that stands inside another one, cut at ten."""
    return {
        "object": "list",
        "data": entries[:NESTED_LIMIT],
        "has_more": len(entries) > NESTED_LIMIT,
        "total_count": len(entries),
        "url": url,
    }


def expanded(account: Account, shown: Any, paths: list[str]) -> Any:
    """Returns what is shown with the objects that the paths name in place of their ids.

    Args:
        account: Where the objects are.
        shown: A presented object or list.
        paths: As in `expand[]`: `latest_invoice.payments`, in lists `data.customer`.

    Raises:
        StripeApiError: 400, when a path names what can't be expanded or has more than four levels.
    """
    for path in paths:
        parts = path.split(".")
        if len(parts) > MAX_EXPAND_DEPTH:
            raise StripeApiError(f"You cannot expand more than 4 levels of a property ({path}).", param="expand")
        shown = _expand(account, shown, parts, path)
    return shown


def _expand(account: Account, shown: Any, parts: list[str], path: str) -> Any:
    if not parts or shown is None:
        return shown
    if isinstance(shown, list):
        return [_expand(account, entry, parts, path) for entry in shown]
    if not isinstance(shown, dict):
        raise StripeApiError(f"This property cannot be expanded ({path}).", param="expand")
    if shown.get("object") == "list" and parts[0] != "data":
        parts = ["data", *parts]
    name, rest = parts[0], parts[1:]
    inclusion = _INCLUSIONS.get((shown.get("object", ""), name))
    if inclusion is not None:
        value: Any = inclusion(account, shown)
    elif name in shown:
        value = _resolved(account, name, shown[name], last=not rest, path=path)
    else:
        raise StripeApiError(f"This property cannot be expanded ({path}).", param="expand")
    return {**shown, name: _expand(account, value, rest, path)}


def _resolved(account: Account, name: str, value: Any, *, last: bool, path: str) -> Any:
    if isinstance(value, list) and name in REFERENCES:
        return [_resolved(account, name, entry, last=last, path=path) for entry in value]
    if isinstance(value, str) and name in REFERENCES:
        target = account.find(REFERENCES[name], value)
        return value if target is None else present(account, target)
    if last and value is not None and not isinstance(value, dict):
        raise StripeApiError(f"This property cannot be expanded ({path}).", param="expand")
    return value


def visible(entry: Json) -> Json:
    """Returns the object without the double's own members."""
    return {name: value for name, value in entry.items() if name[0] != "_"}


def _subscription(account: Account, entry: Json) -> Json:
    items = [subscription_item(account, entry, item) for item in entry["items"]]
    shown = visible(entry)
    shown["items"] = nested(f"/v1/subscription_items?subscription={entry['id']}", items)
    return shown


def subscription_item(account: Account, subscription: Json, item: Json) -> Json:
    """Returns an item of a subscription with its price and the plan that older readers look for."""
    price = account.get("price", item["price"])
    return {**item, "subscription": subscription["id"], "price": price, "plan": _plan(price)}


def _plan(price: Json) -> Json:
    recurring = price["recurring"] or {}
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring.get("interval"),
        "interval_count": recurring.get("interval_count"),
        "livemode": False,
        "metadata": price["metadata"],
        "meter": None,
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": recurring.get("trial_period_days"),
        "usage_type": recurring.get("usage_type"),
    }


def _invoice(_: Account, entry: Json) -> Json:
    shown = visible(entry)
    shown["lines"] = nested(f"/v1/invoices/{entry['id']}/lines", entry["lines"])
    return shown


def _event(account: Account, entry: Json) -> Json:
    shown = visible(entry)
    shown["pending_webhooks"] = len(account.owned("_delivery", entry["id"]))
    return shown


def _hiding(_: Account, entry: Json) -> Json:
    return visible(entry)


_SHAPES: dict[str, Callable[[Account, Json], Json]] = {
    "account": _hiding,
    "subscription": _subscription,
    "invoice": _invoice,
    "event": _event,
    "payment_method": _hiding,
    "payment_intent": _hiding,
    "webhook_endpoint": _hiding,
}


def _customer_subscriptions(account: Account, shown: Json) -> Json:
    live = [
        present(account, entry)
        for entry in account.owned("subscription", shown["id"])
        if entry["status"] not in {"canceled", "incomplete_expired"}
    ]
    return nested(f"/v1/customers/{shown['id']}/subscriptions", live)


def _invoice_payments(account: Account, shown: Json) -> Json:
    payments = account.owned("invoice_payment", shown["id"])
    return nested(f"/v1/invoice_payments?invoice={shown['id']}", payments)


def _charge_refunds(account: Account, shown: Json) -> Json:
    return nested(f"/v1/charges/{shown['id']}/refunds", account.owned("refund", shown["id"]))


_INCLUSIONS: dict[tuple[str, str], Callable[[Account, Json], Json]] = {
    ("customer", "subscriptions"): _customer_subscriptions,
    ("invoice", "payments"): _invoice_payments,
    ("charge", "refunds"): _charge_refunds,
}
"""Members that Stripe leaves out unless they are asked for."""
