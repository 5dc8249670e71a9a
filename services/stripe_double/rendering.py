"""Objects and lists as the API returns them: nested lists, `expand[]`, pagination and filters."""

from collections.abc import Callable
from typing import Any

from services.stripe_double.account import Account, Json
from services.stripe_double.errors import StripeApiError, resource_missing
from services.stripe_double.params import Params

NESTED_LIMIT = 10
"""Length at which lists inside objects are cut; all entries are at the list's own URL (docs.stripe.com/expand)."""
CHECKOUT_PAGE = "/c/pay/"
"""Path of the pages of Checkout Sessions, before the session's ID. The others likewise."""
PORTAL_PAGE = "/p/session/"
LOGIN_PAGE = "/p/login/"
INVOICE_PAGE = "/i/"
RECEIPT_PAGE = "/receipts/"
CREDIT_NOTE_PAGE = "/credit_notes/"
PAYMENT_PAGE = "/test/payments/"
"""Path of a payment in the dashboard, before the ID of its payment intent or charge."""
PDF = "/pdf"
"""End of the path of a PDF, after the path of its page."""
MAX_EXPAND_DEPTH = 4
DEFAULT_LIMIT = 10
MAX_LIMIT = 100

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
    "schedule": "subscription_schedule",
    "subscription": "subscription",
}
"""Members with the ID of another object, and that object's kind; only these can be expanded."""


def render(account: Account, entry: Json) -> Json:
    """Return the object as Stripe returns it, without internal members."""
    renderer = _RENDERERS.get(entry["object"])
    return renderer(account, entry) if renderer else entry


def public_members(entry: Json) -> Json:
    """Return the object without internal members."""
    return {name: value for name, value in entry.items() if name[0] != "_"}


def subscription_item(account: Account, subscription: Json, item: Json) -> Json:
    """Return an item of a subscription with its price, and with the `plan` that older clients read."""
    price = account.get("price", item["price"])
    rendered = public_members(item)
    if item["quantity"] is None:
        # Items of metered prices have no quantity.
        del rendered["quantity"]
    return {**rendered, "subscription": subscription["id"], "price": public_members(price), "plan": _plan(price)}


def checkout_line_item(account: Account, item: Json) -> Json:
    """Return a line item of a Checkout Session with its price; taxes and discounts are not computed."""
    price = render(account, account.get("price", item["price"]))
    amount = (price["unit_amount"] or 0) * (item["quantity"] or 0)
    return {
        "id": item["id"],
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": account.get("product", price["product"])["name"],
        "metadata": {},
        "price": price,
        "quantity": item["quantity"],
    }


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
        "meter": recurring.get("meter"),
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": price["transform_quantity"],
        "trial_period_days": recurring.get("trial_period_days"),
        "usage_type": recurring.get("usage_type"),
    }


def _subscription(account: Account, entry: Json) -> Json:
    items = [subscription_item(account, entry, item) for item in entry["items"]]
    rendered = public_members(entry)
    rendered["default_tax_rates"] = _tax_rates(account, entry)
    rendered["items"] = _nested_list(f"/v1/subscription_items?subscription={entry['id']}", items)
    if entry["pending_update"] is not None:
        changed = [subscription_item(account, entry, item) for item in entry["pending_update"]["subscription_items"]]
        rendered["pending_update"] = {**entry["pending_update"], "subscription_items": changed}
    return rendered


def _tax_rates(account: Account, entry: Json) -> list[Json]:
    return [account.get("tax_rate", identifier) for identifier in entry["default_tax_rates"]]


def _invoice(account: Account, entry: Json) -> Json:
    rendered = public_members(entry)
    rendered["default_tax_rates"] = _tax_rates(account, entry)
    # The invoice of `invoice.upcoming` has no ID.
    rendered["lines"] = _nested_list(f"/v1/invoices/{entry.get('id', 'upcoming')}/lines", entry["lines"])
    # The pages' address is another one after a restart on another port, so it is not stored.
    page = None if entry["status"] == "draft" else f"{account.pages_url}{INVOICE_PAGE}{entry['id']}"
    return {**rendered, "hosted_invoice_url": page, "invoice_pdf": page and page + PDF}


def _charge(account: Account, entry: Json) -> Json:
    succeeded = entry["status"] == "succeeded"
    return {**entry, "receipt_url": f"{account.pages_url}{RECEIPT_PAGE}{entry['id']}" if succeeded else None}


def _credit_note(account: Account, entry: Json) -> Json:
    return {**entry, "pdf": f"{account.pages_url}{CREDIT_NOTE_PAGE}{entry['id']}{PDF}"}


def _portal_session(account: Account, entry: Json) -> Json:
    return {**public_members(entry), "url": f"{account.pages_url}{PORTAL_PAGE}{entry['_token']}"}


def _portal_configuration(account: Account, entry: Json) -> Json:
    enabled = entry["login_page"]["enabled"]
    url = f"{account.pages_url}{LOGIN_PAGE}{entry['id']}" if enabled else None
    return {**entry, "login_page": {"enabled": enabled, "url": url}}


def _checkout_session(account: Account, entry: Json) -> Json:
    url = f"{account.pages_url}{CHECKOUT_PAGE}{entry['id']}" if entry["status"] == "open" else None
    return {**public_members(entry), "url": url}


def _event(account: Account, entry: Json) -> Json:
    rendered = public_members(entry)
    rendered["pending_webhooks"] = len(account.owned("_delivery", entry["id"]))
    return rendered


def _product_feature(account: Account, entry: Json) -> Json:
    if entry.get("deleted"):
        return entry
    return {**public_members(entry), "entitlement_feature": account.get("entitlements.feature", entry["_feature"])}


def _without_internal_members(_: Account, entry: Json) -> Json:
    return public_members(entry)


_RENDERERS: dict[str, Callable[[Account, Json], Json]] = {
    "account": _without_internal_members,
    "billing_portal.configuration": _portal_configuration,
    "billing_portal.session": _portal_session,
    "charge": _charge,
    "credit_note": _credit_note,
    "customer": _without_internal_members,
    "checkout.session": _checkout_session,
    "subscription": _subscription,
    "invoice": _invoice,
    "event": _event,
    "payment_method": _without_internal_members,
    "payment_intent": _without_internal_members,
    "price": _without_internal_members,
    "product_feature": _product_feature,
    "webhook_endpoint": _without_internal_members,
}
"""Renderers of the kinds that are stored in another shape, or with internal members."""


def _nested_list(url: str, entries: list[Json]) -> Json:
    return {
        "object": "list",
        "data": entries[:NESTED_LIMIT],
        "has_more": len(entries) > NESTED_LIMIT,
        "total_count": len(entries),
        "url": url,
    }


def expand(account: Account, rendered: Any, paths: list[str]) -> Any:
    """Replace the IDs that the paths name with the objects.

    Args:
        account: The account that holds the objects.
        rendered: A rendered object or list.
        paths: Paths as in `expand[]`: `latest_invoice.payments`, in lists `data.customer`.

    Raises:
        StripeApiError: 400 if a path names a member that can't be expanded, or has more than 4 levels.
    """
    for path in paths:
        parts = path.split(".")
        if len(parts) > MAX_EXPAND_DEPTH:
            raise StripeApiError(f"You cannot expand more than 4 levels of a property ({path}).", param="expand")
        rendered = _expand(account, rendered, parts, path)
    return rendered


def _expand(account: Account, rendered: Any, parts: list[str], path: str) -> Any:
    if not parts or rendered is None:
        return rendered
    if isinstance(rendered, list):
        return [_expand(account, entry, parts, path) for entry in rendered]
    if not isinstance(rendered, dict):
        raise _not_expandable(path)
    if rendered.get("object") == "list" and parts[0] != "data":
        parts = ["data", *parts]
    name, rest = parts[0], parts[1:]
    includable = _INCLUDABLE.get((rendered.get("object", ""), name))
    if includable is not None:
        # An earlier path may have included it, and expanded parts of it.
        value: Any = rendered[name] if name in rendered else includable(account, rendered)
    elif isinstance(rendered, _CurrencyOption) and name == "tiers":
        value = rendered.all_tiers
    elif name in rendered:
        value = _dereferenced(account, name, rendered[name], last=not rest, path=path)
    else:
        raise _not_expandable(path)
    if value is None and name == "tiers":
        # A flat price has no such member, even if it is expanded.
        return rendered
    return {**rendered, name: _expand(account, value, rest, path)}


def _dereferenced(account: Account, name: str, value: Any, *, last: bool, path: str) -> Any:
    if isinstance(value, list) and name in REFERENCES:
        return [_dereferenced(account, name, entry, last=last, path=path) for entry in value]
    if isinstance(value, str) and name in REFERENCES:
        target = account.find(REFERENCES[name], value)
        return value if target is None else render(account, target)
    if last and value is not None and not isinstance(value, dict):
        raise _not_expandable(path)
    return value


def _not_expandable(path: str) -> StripeApiError:
    return StripeApiError(f"This property cannot be expanded ({path}).", param="expand")


def _customer_subscriptions(account: Account, customer: Json) -> Json:
    not_ended = [
        render(account, entry)
        for entry in account.owned("subscription", customer["id"])
        if entry["status"] not in {"canceled", "incomplete_expired"}
    ]
    return _nested_list(f"/v1/customers/{customer['id']}/subscriptions", not_ended)


def _invoice_payments(account: Account, invoice: Json) -> Json:
    payments = account.owned("invoice_payment", invoice["id"])
    return _nested_list(f"/v1/invoice_payments?invoice={invoice['id']}", payments)


def _charge_refunds(account: Account, charge: Json) -> Json:
    return _nested_list(f"/v1/charges/{charge['id']}/refunds", account.owned("refund", charge["id"]))


def _session_items(account: Account, session: Json) -> Json:
    items = [checkout_line_item(account, item) for item in account.get(session["object"], session["id"])["_items"]]
    return _nested_list(f"/v1/checkout/sessions/{session['id']}/line_items", items)


class _CurrencyOption(Json):
    """The amount of a price in one currency; it has its tiers only if `currency_options.eur.tiers` is expanded."""

    def __init__(self, option: Json) -> None:
        super().__init__({name: value for name, value in option.items() if name != "tiers"})
        self.all_tiers = option["tiers"]


def _price_currency_options(account: Account, price: Json) -> Json:
    stored = account.get("price", price["id"])
    own = {
        "custom_unit_amount": None,
        "tax_behavior": stored["tax_behavior"],
        "tiers": stored.get("_tiers"),
        "unit_amount": stored["unit_amount"],
        "unit_amount_decimal": stored["unit_amount_decimal"],
    }
    options = {stored["currency"]: own, **stored.get("_currency_options", {})}
    return {code: _CurrencyOption(option) for code, option in sorted(options.items())}


def _price_tiers(account: Account, price: Json) -> Any:
    return account.get("price", price["id"]).get("_tiers")


_INCLUDABLE: dict[tuple[str, str], Callable[[Account, Json], Any]] = {
    ("checkout.session", "line_items"): _session_items,
    ("customer", "subscriptions"): _customer_subscriptions,
    ("invoice", "payments"): _invoice_payments,
    ("charge", "refunds"): _charge_refunds,
    ("price", "currency_options"): _price_currency_options,
    ("price", "tiers"): _price_tiers,
}
"""Members that Stripe includes only when `expand[]` names them (docs.stripe.com/expand: includable properties)."""


def list_page(
    account: Account, params: Params, url: str, entries: list[Json], *, cursors: list[Json] | None = None
) -> Json:
    """Return one page of a list as Stripe's list object.

    Args:
        account: The account that holds the objects.
        params: `limit` (1 to 100, default 10), `starting_after`, `ending_before`, `created`.
        url: The path of the list.
        entries: All objects that pass the other filters, newest first.
        cursors: All objects that a cursor may name, newest first, for lists whose objects can stop
            passing the filters between two pages.

    Raises:
        StripeApiError: 400 for a limit out of bounds, a cursor that does not exist, an unknown parameter.
    """
    limit = params.integer("limit", DEFAULT_LIMIT) or 0
    if not 1 <= limit <= MAX_LIMIT:
        raise params.invalid("limit", "Limit must be between 1 and 100.", "parameter_invalid_integer")
    after, before = params.string("starting_after"), params.string("ending_before")
    if after and before:
        raise params.invalid("starting_after", "You may only specify one of these: starting_after, ending_before.")
    in_range = _range(params, "created")
    if in_range is not None:
        entries = [entry for entry in entries if in_range(entry["created"])]
    params.reject_unknown()
    if cursors is not None:
        entries = _beyond_cursor(entries, cursors, after, before)
        after = None
    if before and cursors is not None:
        chosen, more = entries[-limit:], len(entries) > limit
    elif before:
        newer = entries[: _position(entries, before, "ending_before")]
        chosen, more = newer[-limit:], len(newer) > limit
    else:
        older = entries[_position(entries, after, "starting_after") + 1 :] if after else entries
        chosen, more = older[:limit], len(older) > limit
    return {
        "object": "list",
        "data": [render(account, entry) for entry in chosen],
        "has_more": more,
        "url": url,
    }


def filter_equal(params: Params, entries: list[Json], *members: str) -> list[Json]:
    """Return the entries whose members equal the parameters of the same names, as far as these were sent."""
    wanted = {name: value for name in members if (value := params.string(name)) is not None}
    if not wanted:
        return entries
    return [entry for entry in entries if all(entry.get(name) == value for name, value in wanted.items())]


def filter_boolean(params: Params, entries: list[Json], member: str) -> list[Json]:
    """Return the entries whose Boolean member equals the parameter of that name, if it was sent."""
    wanted = params.boolean(member)
    return entries if wanted is None else [entry for entry in entries if entry[member] is wanted]


def filter_customer(account: Account, params: Params, kind: str) -> list[Json]:
    """Return the objects of a kind; only those of one customer if the parameter `customer` was sent."""
    customer = params.string("customer")
    return account.all(kind) if customer is None else account.owned(kind, customer)


_COMPARISONS: dict[str, Callable[[Any, int], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}


def _range(params: Params, name: str) -> Callable[[int], bool] | None:
    """Return the predicate of a time range such as `created[gte]`; None if the range was not sent.

    None matters: some listed objects have no `created`.
    """
    if isinstance(params.raw(name), str):
        exactly = params.integer(name)
        return lambda value: value == exactly
    range_params = params.nested(name)
    if range_params is None:
        return None
    bounds = [
        (matches, bound)
        for comparison, matches in _COMPARISONS.items()
        if (bound := range_params.integer(comparison)) is not None
    ]
    range_params.reject_unknown()
    return lambda value: all(matches(value, bound) for matches, bound in bounds)


def _beyond_cursor(entries: list[Json], cursors: list[Json], after: str | None, before: str | None) -> list[Json]:
    """Return the entries beyond the cursor, which need not be one of the entries."""
    if after:
        older = {entry["id"] for entry in cursors[_position(cursors, after, "starting_after") + 1 :]}
        return [entry for entry in entries if entry["id"] in older]
    if before:
        newer = {entry["id"] for entry in cursors[: _position(cursors, before, "ending_before")]}
        return [entry for entry in entries if entry["id"] in newer]
    return entries


def _position(entries: list[Json], identifier: str, param: str) -> int:
    for position, entry in enumerate(entries):
        if entry["id"] == identifier:
            return position
    kind = entries[0]["object"] if entries else "object"
    raise resource_missing(kind, identifier, param=param)
