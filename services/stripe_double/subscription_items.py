"""Subscription items: prices, quantities and billing periods."""

from services.stripe_double import invoice_items
from services.stripe_double.account import Account, Json, new_id
from services.stripe_double.clock import next_period_end
from services.stripe_double.errors import StripeApiError, not_supported, resource_missing
from services.stripe_double.params import Params
from services.stripe_double.prices import is_metered, read_quantity, recurring_price
from services.stripe_double.rendering import list_page, subscription_item

MAX_ITEMS = 20


def new_items(account: Account, params: Params) -> list[Json]:
    """Return the `items` of a new subscription; the caller sets their periods.

    Raises:
        StripeApiError: 400 for no items, more than 20 items, a repeated price, or two currencies.
    """
    items = [_new_item(account, entry) for entry in params.nested_list("items")]
    if not items:
        raise params.missing("items")
    _require_compatible(account, items)
    return items


def _new_item(account: Account, params: Params) -> Json:
    price = recurring_price(account, params)
    item = {
        "id": new_id("subscription_item"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": account.now,
        "current_period_end": account.now,
        "current_period_start": account.now,
        "discounts": [],
        "metadata": params.metadata(),
        "price": price["id"],
        "quantity": read_quantity(params, price),
        "tax_rates": [],
        **_usage_members(account.now),
    }
    if params.nested_list("discounts"):
        raise not_supported("discounts on single items", params.encoded_name("discounts"))
    params.reject_unknown()
    return item


def _usage_members(start: int) -> Json:
    """Return the members for usage: its start in the current period, and the time that the period's invoice bills."""
    return {"_usage_from": start, "_arrears": (start, start)}


def _require_compatible(account: Account, items: list[Json]) -> None:
    if len(items) > MAX_ITEMS:
        raise StripeApiError(f"A subscription may have up to {MAX_ITEMS} items.", param="items")
    prices = [item["price"] for item in items]
    if len(set(prices)) < len(prices):
        raise StripeApiError(
            "Cannot add multiple subscription items with the same price.", param="items", code="resource_already_exists"
        )
    if len({account.get("price", price)["currency"] for price in prices}) > 1:
        raise StripeApiError("All prices of a subscription must have the same currency.", param="items")


def with_items_changed(
    account: Account, subscription: Json, entries: list[Params], *, prorate: bool, at: int | None = None
) -> Json:
    """Return the subscription with items added, changed or removed; create the pending items of prorations.

    A price with another interval starts a new billing cycle for all items, which the caller bills in full.

    Args:
        account: The account.
        subscription: The subscription before the change.
        entries: The `items` of an update; an entry with an `id` changes that item, another one adds an item.
        prorate: Credit unused time and charge remaining time.
        at: Start of the remaining time in Unix seconds; by default now.
    """
    before = {item["id"]: item for item in subscription["items"]}
    after = dict(before)
    for params in entries:
        identifier = params.string("id")
        if identifier is None:
            item = with_period(account, _new_item(account, params), subscription["billing_cycle_anchor"], account.now)
            after[item["id"]] = item
        elif identifier not in after:
            raise resource_missing("subscription_item", identifier, param=params.encoded_name("id"))
        elif params.boolean("deleted"):
            params.boolean("clear_usage")
            params.reject_unknown()
            del after[identifier]
        else:
            after[identifier] = _changed_item(account, after[identifier], params)
    if not after:
        raise StripeApiError("A subscription must have at least one active plan.", param="items")
    _require_compatible(account, list(after.values()))
    changed = {**subscription, "items": list(after.values())}
    new_cycle = subscription["status"] != "trialing" and any(
        _interval(account, before[name]) != _interval(account, after[name]) for name in before.keys() & after.keys()
    )
    for name in {**before, **after} if prorate else ():
        _prorate(account, subscription, before.get(name), after.get(name), new_cycle=new_cycle, at=at or account.now)
    return with_new_cycle(account, changed, account.now) if new_cycle else changed


def _changed_item(account: Account, item: Json, params: Params) -> Json:
    sent = "price" in params or "price_data" in params
    price = recurring_price(account, params) if sent else account.get("price", item["price"])
    after = {
        **item,
        "price": price["id"],
        "quantity": read_quantity(params, price, item["quantity"]),
        "metadata": params.metadata(item["metadata"]),
    }
    params.reject_unknown()
    if after["price"] != item["price"]:
        # Usage counts from the change on (docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup).
        after |= _usage_members(account.now)
    return after


def _interval(account: Account, item: Json) -> tuple[str, int]:
    recurring = account.get("price", item["price"])["recurring"]
    return recurring["interval"], recurring["interval_count"]


def _prorate(
    account: Account, subscription: Json, before: Json | None, after: Json | None, *, new_cycle: bool, at: int
) -> None:
    unchanged = before and after and (before["price"], before["quantity"]) == (after["price"], after["quantity"])
    if unchanged and not new_cycle:
        return
    if before is not None:
        invoice_items.prorate(account, subscription, before, sign=-1, at=at)
        if is_metered(account.get("price", before["price"])) and (after is None or after["price"] != before["price"]):
            invoice_items.bill_usage(account, subscription, before)
    if after is not None and not new_cycle:
        invoice_items.prorate(account, subscription, after, sign=1, at=at)


def with_period(account: Account, item: Json, anchor: int, start: int) -> Json:
    """Return an item with a period from `start` to the next period end of its price, counted from the anchor."""
    recurring = account.get("price", item["price"])["recurring"]
    end = next_period_end(anchor, recurring["interval"], recurring["interval_count"], start)
    arrears = (item.get("_usage_from", start), start)
    return {
        **item,
        "current_period_start": start,
        "current_period_end": end,
        "_usage_from": start,
        "_arrears": arrears,
    }


def metered_until_now(account: Account, subscription: Json) -> list[Json]:
    """Return the metered items of a subscription that ends now, with its unbilled usage to bill."""
    return [
        {**item, "_arrears": (item["_usage_from"], account.now)}
        for item in subscription["items"]
        if is_metered(account.get("price", item["price"])) and subscription["status"] not in {"incomplete", "trialing"}
    ]


def with_new_cycle(account: Account, subscription: Json, at: int) -> Json:
    """Return the subscription with a new billing cycle: the anchor and every item's period start at `at`."""
    items = [with_period(account, item, at, at) for item in subscription["items"]]
    return {**subscription, "billing_cycle_anchor": at, "items": items}


def read_proration_date(params: Params, subscription: Json) -> int | None:
    """Return `proration_date`, which must be within the current period of the subscription."""
    at = params.integer("proration_date")
    start = min(item["current_period_start"] for item in subscription["items"])
    if at is not None and not start <= at < period_end(subscription):
        raise params.invalid("proration_date", "The proration date must be within the current billing period.")
    return at


def period_end(subscription: Json) -> int:
    """Return the latest period end of a subscription's items in Unix seconds."""
    return int(max(item["current_period_end"] for item in subscription["items"]))


def retrieve_subscription_item(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/subscription_items/{id}."""
    params.reject_unknown()
    for subscription in account.all("subscription"):
        for item in subscription["items"]:
            if item["id"] == identifier:
                return subscription_item(account, subscription, item)
    raise resource_missing("subscription_item", identifier)


def list_subscription_items(account: Account, params: Params) -> Json:
    """GET /v1/subscription_items of one `subscription`; the list inside the subscription ends after ten."""
    subscription = account.get("subscription", params.required("subscription"), param="subscription")
    items = [subscription_item(account, subscription, item) for item in subscription["items"]]
    return list_page(account, params, "/v1/subscription_items", items)
