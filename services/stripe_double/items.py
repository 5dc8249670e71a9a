"""What does a subscription consist of? Its items: a price and how many of it."""

from services.stripe_double import lines
from services.stripe_double.account import Account, Json
from services.stripe_double.billing import restarted, with_period
from services.stripe_double.catalog import price_of
from services.stripe_double.errors import StripeApiError, missing, not_played
from services.stripe_double.ids import new_id
from services.stripe_double.listing import page
from services.stripe_double.params import Params
from services.stripe_double.presentation import subscription_item

MAX_ITEMS = 20


def ordered(account: Account, params: Params) -> list[Json]:
    """Reads the `items` of a new subscription; their periods are the caller's to set.

    Raises:
        StripeApiError: 400 without items, with more than 20, with one price twice, or with two currencies.
    """
    items = [_new(account, entry) for entry in params.children("items")]
    if not items:
        raise params.refuse("items", "Missing required param: items.", "parameter_missing")
    _fit(account, items)
    return items


def _new(account: Account, params: Params) -> Json:
    price = price_of(account, params)
    item = {
        "id": new_id("subscription_item"),
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": account.now,
        "current_period_end": account.now,
        "current_period_start": account.now,
        "discounts": [],
        "metadata": params.metadata(),
        "price": price["id"],
        "quantity": params.integer("quantity", 1, least=0),
        "tax_rates": [],
    }
    if params.children("discounts"):
        raise not_played("discounts on single items", params.spelled("discounts"))
    params.finish()
    return item


def _fit(account: Account, items: list[Json]) -> None:
    if len(items) > MAX_ITEMS:
        raise StripeApiError(f"A subscription may have up to {MAX_ITEMS} items.", param="items")
    prices = [item["price"] for item in items]
    if len(set(prices)) < len(prices):
        raise StripeApiError(
            "Cannot add multiple subscription items with the same price.", param="items", code="resource_already_exists"
        )
    if len({account.get("price", price)["currency"] for price in prices}) > 1:
        raise StripeApiError("All prices of a subscription must have the same currency.", param="items")


def changed(account: Account, subscription: Json, wanted: list[Params], *, prorated: bool) -> Json:
    """Returns the subscription with items added, changed or removed; what was paid is prorated.

    A price with another interval begins a new cycle of all items at once, to be billed in full.

    Args:
        account: Where.
        subscription: As it is.
        wanted: The `items` of an update; those with an `id` are changed, others added.
        prorated: Whether unused and remaining time is credited and charged.
    """
    before = {item["id"]: item for item in subscription["items"]}
    after = dict(before)
    for params in wanted:
        identifier = params.text("id")
        if identifier is None:
            added = with_period(account, _new(account, params), subscription["billing_cycle_anchor"], account.now)
            after[added["id"]] = added
        elif identifier not in after:
            raise missing("subscription_item", identifier, param=params.spelled("id"))
        elif params.flag("deleted"):
            params.flag("clear_usage")
            params.finish()
            del after[identifier]
        else:
            after[identifier] = _replaced(account, after[identifier], params)
    if not after:
        raise StripeApiError("A subscription must have at least one active plan.", param="items")
    _fit(account, list(after.values()))
    renewed = {**subscription, "items": list(after.values())}
    restarting = subscription["status"] != "trialing" and any(
        _interval(account, before[name]) != _interval(account, after[name]) for name in before.keys() & after.keys()
    )
    for name in {**before, **after} if prorated else ():
        _prorate(account, subscription, before.get(name), after.get(name), restarting=restarting)
    return restarted(account, renewed, account.now) if restarting else renewed


def _replaced(account: Account, item: Json, params: Params) -> Json:
    renamed = "price" in params or "price_data" in params
    after = {
        **item,
        "price": price_of(account, params)["id"] if renamed else item["price"],
        "quantity": params.integer("quantity", item["quantity"], least=0),
        "metadata": params.metadata(item["metadata"]),
    }
    params.finish()
    return after


def _interval(account: Account, item: Json) -> tuple[str, int]:
    recurring = account.get("price", item["price"])["recurring"]
    return recurring["interval"], recurring["interval_count"]


def _prorate(
    account: Account, subscription: Json, before: Json | None, after: Json | None, *, restarting: bool
) -> None:
    same = before and after and (before["price"], before["quantity"]) == (after["price"], after["quantity"])
    if same and not restarting:
        return
    if before is not None:
        lines.prorate(account, subscription, before, sign=-1, at=account.now)
    if after is not None and not restarting:
        lines.prorate(account, subscription, after, sign=1, at=account.now)


def retrieve(account: Account, params: Params, identifier: str) -> Json:
    """GET /v1/subscription_items/{id}."""
    params.finish()
    for subscription in account.all("subscription"):
        for item in subscription["items"]:
            if item["id"] == identifier:
                return subscription_item(account, subscription, item)
    raise missing("subscription_item", identifier)


def listed(account: Account, params: Params) -> Json:
    """GET /v1/subscription_items of one `subscription`, all of them: the nested list is cut at ten."""
    subscription = account.get("subscription", params.needed("subscription"), param="subscription")
    shown = [subscription_item(account, subscription, item) for item in subscription["items"]]
    return page(account, params, "/v1/subscription_items", shown)
