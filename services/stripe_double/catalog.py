"""What is for sale? Products and their prices."""

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.errors import not_played
from services.stripe_double.ids import new_id
from services.stripe_double.listing import filtered, flagged, page
from services.stripe_double.params import Params
from services.stripe_double.periods import INTERVALS


def create_product(account: Account, params: Params) -> Json:
    """POST /v1/products; the caller may choose the id."""
    identifier = params.text("id") or new_id("product")
    product = {
        **account.new("product"),
        "id": identifier,
        "active": params.flag("active", default=True),
        "default_price": None,
        "description": params.text("description"),
        "images": [],
        "marketing_features": [],
        "metadata": params.metadata(),
        "name": params.needed("name"),
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": account.now,
        "url": None,
    }
    params.finish()
    if account.find("product", identifier) is not None:
        raise params.refuse("id", f"Product already exists: {identifier}", "resource_already_exists")
    events.emit(account, "product.created", account.put(product))
    return product


def update_product(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/products/{id}."""
    product = account.get("product", identifier)
    changes = {
        **params.given(("name", "description", "default_price")),
        "active": params.flag("active", default=product["active"]),
        "metadata": params.metadata(product["metadata"]),
    }
    params.finish()
    if changes.get("default_price") is not None:
        account.get("price", str(changes["default_price"]), param="default_price")
    return events.changed(account, "product.updated", product, account.update(product, **changes))


def list_products(account: Account, params: Params) -> Json:
    """GET /v1/products."""
    return page(account, params, "/v1/products", flagged(params, account.all("product"), "active"))


def create_price(account: Account, params: Params) -> Json:
    """POST /v1/prices: one amount per unit, for an interval or once."""
    recurring = params.child("recurring")
    return _priced(account, params, _recurring(recurring) if recurring else None)


def price_of(account: Account, params: Params) -> Json:
    """Returns the recurring price that a subscription's item names, or makes the one it describes.

    Args:
        account: Where.
        params: The item, with `price` or `price_data`.
    """
    described = params.child("price_data")
    if described is not None:
        recurring = described.child("recurring")
        if recurring is None:
            raise described.refuse("recurring", "Missing required param: recurring.", "parameter_missing")
        return _priced(account, described, _recurring(recurring))
    price = account.get("price", params.needed("price"), param=params.spelled("price"))
    if price["recurring"] is None:
        raise params.refuse(
            "price", "The price specified is set to `type=one_time` but this field only accepts `type=recurring`."
        )
    if not price["active"]:
        raise params.refuse("price", "The price specified is inactive. This field only accepts active prices.")
    return price


def _recurring(params: Params) -> Json:
    interval = params.choice("interval", INTERVALS)
    if interval is None:
        raise params.refuse("interval", "Missing required param: interval.", "parameter_missing")
    if params.choice("usage_type", ("licensed", "metered"), "licensed") == "metered":
        raise not_played("metered prices", params.spelled("usage_type"))
    recurring = {
        "interval": interval,
        "interval_count": params.integer("interval_count", 1, least=1),
        "meter": None,
        "trial_period_days": params.integer("trial_period_days", least=1),
        "usage_type": "licensed",
    }
    params.finish()
    return recurring


def _priced(account: Account, params: Params, recurring: Json | None) -> Json:
    amount = params.integer("unit_amount", least=0)
    lookup_key = params.text("lookup_key")
    product = params.text("product")
    described = params.child("product_data")
    price = account.new(
        "price",
        active=params.flag("active", default=True),
        billing_scheme="per_unit",
        currency=params.needed("currency").lower(),
        custom_unit_amount=None,
        lookup_key=lookup_key,
        metadata=params.metadata(),
        nickname=params.text("nickname"),
        recurring=recurring,
        tax_behavior="unspecified",
        tiers_mode=None,
        transform_quantity=None,
        type="one_time" if recurring is None else "recurring",
        unit_amount=amount,
        unit_amount_decimal=None if amount is None else str(amount),
    )
    params.finish()
    if amount is None:
        raise params.refuse("unit_amount", "Missing required param: unit_amount.", "parameter_missing")
    if any(lookup_key and other["lookup_key"] == lookup_key for other in account.all("price")):
        raise params.refuse("lookup_key", f"A price with lookup key '{lookup_key}' already exists.")
    if described is not None:
        product = create_product(account, described)["id"]
    if product is None:
        raise params.refuse("product", "Missing required param: product.", "parameter_missing")
    price["product"] = account.get("product", product, param=params.spelled("product"))["id"]
    events.emit(account, "price.created", account.put(price))
    return price


def update_price(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/prices/{id}; amounts and intervals never change."""
    price = account.get("price", identifier)
    changes = {
        **params.given(("nickname", "lookup_key")),
        "active": params.flag("active", default=price["active"]),
        "metadata": params.metadata(price["metadata"]),
    }
    params.finish()
    return events.changed(account, "price.updated", price, account.update(price, **changes))


def list_prices(account: Account, params: Params) -> Json:
    """GET /v1/prices."""
    prices = flagged(params, account.all("price"), "active")
    prices = filtered(params, prices, "product", "currency", "type")
    keys = params.texts("lookup_keys")
    if keys:
        prices = [price for price in prices if price["lookup_key"] in keys]
    return page(account, params, "/v1/prices", prices)
