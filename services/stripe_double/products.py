"""Products, and the features of Stripe Entitlements that they grant."""

from collections.abc import Callable
from typing import Any

from services.stripe_double import events, prices
from services.stripe_double.account import Account, Json, new_id
from services.stripe_double.errors import StripeApiError, resource_missing
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_boolean, filter_equal, list_page

MAX_MARKETING_FEATURES = 15
MAX_FEATURE_NAME = 80
TEXTS = ("name", "description", "statement_descriptor", "tax_code", "unit_label", "url")


def create_product(account: Account, params: Params) -> Json:
    """POST /v1/products; the client may choose the ID, and `default_price_data` creates a price."""
    identifier = params.string("id") or new_id("product")
    default_price = params.nested("default_price_data")
    product = {
        **account.new("product"),
        "id": identifier,
        "active": params.boolean("active", default=True),
        "default_price": None,
        "description": None,
        "images": params.strings("images"),
        "marketing_features": _marketing_features(params),
        "metadata": params.metadata(),
        "package_dimensions": None,
        "shippable": params.boolean("shippable"),
        "statement_descriptor": None,
        "tax_code": None,
        "type": params.choice("type", ("good", "service"), "service"),
        "unit_label": None,
        "updated": account.now,
        "url": None,
        **params.sent_strings(TEXTS),
        "name": params.required("name"),
    }
    params.reject_unknown()
    if account.find("product", identifier) is not None:
        raise params.invalid("id", f"Product already exists: {identifier}", "resource_already_exists")
    account.put(product)
    if default_price is not None:
        price = prices.create_price_of(account, default_price, identifier)
        product = account.update(product, default_price=price["id"])
    events.emit(account, "product.created", product)
    return product


def update_product(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/products/{id}."""
    product = account.get("product", identifier)
    changes: dict[str, Any] = {
        **params.sent_strings((*TEXTS, "default_price")),
        "active": params.boolean("active", default=product["active"]),
        "metadata": params.metadata(product["metadata"]),
        "shippable": params.boolean("shippable", default=product["shippable"]),
    }
    if "marketing_features" in params:
        changes["marketing_features"] = _marketing_features(params)
    if "images" in params:
        changes["images"] = params.strings("images")
    params.reject_unknown()
    if "name" in changes and not changes["name"]:
        raise params.invalid("name", "You cannot unset the name of a product.", "parameter_invalid_empty")
    if changes.get("default_price") is not None:
        price = account.get("price", changes["default_price"], param="default_price")
        if price["product"] != identifier:
            raise params.invalid("default_price", "The price specified belongs to another product.")
    updated = {**product, **changes}
    if updated == product:
        return product
    return events.emit_if_changed(account, "product.updated", product, account.put({**updated, "updated": account.now}))


def delete_product(account: Account, params: Params, identifier: str) -> Json:
    """DELETE /v1/products/{id}; only a product without prices can be deleted."""
    params.reject_unknown()
    product = account.get("product", identifier)
    if any(price["product"] == identifier for price in account.all("price")):
        raise StripeApiError("This product cannot be deleted because it has one or more user-created prices.")
    account.remove("product", identifier)
    events.emit(account, "product.deleted", product)
    return {"id": identifier, "object": "product", "deleted": True}


def list_products(account: Account, params: Params) -> Json:
    """GET /v1/products; without `active` it lists the archived ones too."""
    chosen = filter_boolean(params, account.all("product"), "active")
    identifiers = params.strings("ids")
    if identifiers:
        chosen = [product for product in chosen if product["id"] in identifiers]
    return list_page(account, params, "/v1/products", chosen)


def create_feature(account: Account, params: Params) -> Json:
    """POST /v1/entitlements/features: a feature, whose `lookup_key` is unique and never changes."""
    key, name = params.required("lookup_key"), params.required("name")
    feature = {
        "id": new_id("entitlements.feature"),
        "object": "entitlements.feature",
        "active": True,
        "livemode": False,
        "lookup_key": key,
        "metadata": params.metadata(),
        "name": name,
    }
    params.reject_unknown()
    for field, text in (("lookup_key", key), ("name", name)):
        if len(text) > MAX_FEATURE_NAME:
            raise params.invalid(field, f"{field} may have up to {MAX_FEATURE_NAME} characters.")
    if any(other["lookup_key"] == key and other["active"] for other in account.all("entitlements.feature")):
        raise params.invalid("lookup_key", f"A feature with lookup key '{key}' already exists.")
    return account.put(feature)


def update_feature(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/entitlements/features/{id}: `active`, `name` and `metadata`."""
    feature = account.get("entitlements.feature", identifier)
    changes = {
        **params.sent_strings(("name",)),
        "active": params.boolean("active", default=feature["active"]),
        "metadata": params.metadata(feature["metadata"]),
    }
    params.reject_unknown()
    return account.update(feature, **changes)


def list_features(account: Account, params: Params) -> Json:
    """GET /v1/entitlements/features; archived ones only with `archived`."""
    archived = params.boolean("archived", default=False)
    features = [each for each in account.all("entitlements.feature") if each["active"] is not archived]
    return list_page(account, params, "/v1/entitlements/features", filter_equal(params, features, "lookup_key"))


def attach_feature(account: Account, params: Params, product: str) -> Json:
    """POST /v1/products/{id}/features: a product grants a feature. Stripe sends no event about the product."""
    account.get("product", product)
    feature = account.get("entitlements.feature", params.required("entitlement_feature"), param="entitlement_feature")
    params.reject_unknown()
    if any(each["_feature"] == feature["id"] for each in account.owned("product_feature", product)):
        raise params.invalid("entitlement_feature", "This feature is already attached to the product.")
    return account.put(
        {
            "id": new_id("product_feature"),
            "object": "product_feature",
            "livemode": False,
            "_feature": feature["id"],
            "_product": product,
        }
    )


def list_attached_features(account: Account, params: Params, product: str) -> Json:
    """GET /v1/products/{id}/features."""
    account.get("product", product)
    return list_page(account, params, f"/v1/products/{product}/features", account.owned("product_feature", product))


def retrieve_attached_feature(account: Account, params: Params, product: str, identifier: str) -> Json:
    """GET /v1/products/{id}/features/{id}."""
    params.reject_unknown()
    return _attached(account, product, identifier)


def detach_feature(account: Account, params: Params, product: str, identifier: str) -> Json:
    """DELETE /v1/products/{id}/features/{id}."""
    params.reject_unknown()
    _attached(account, product, identifier)
    account.remove("product_feature", identifier)
    return {"id": identifier, "object": "product_feature", "deleted": True}


def _attached(account: Account, product: str, identifier: str) -> Json:
    found = account.get("product_feature", identifier)
    if found["_product"] != product:
        raise resource_missing("product_feature", identifier)
    return found


def _marketing_features(params: Params) -> list[Json]:
    features = []
    for entry in params.nested_list("marketing_features"):
        features.append({"name": entry.required("name")})
        entry.reject_unknown()
    if len(features) > MAX_MARKETING_FEATURES:
        raise params.invalid("marketing_features", f"You may have up to {MAX_MARKETING_FEATURES} marketing features.")
    return features


def _retrieve_feature(account: Account, params: Params, identifier: str) -> Json:
    params.reject_unknown()
    return account.get("entitlements.feature", identifier)


ROUTES: dict[str, Callable[..., Json]] = {
    "GET /v1/entitlements/features": list_features,
    "POST /v1/entitlements/features": create_feature,
    "GET /v1/entitlements/features/{}": _retrieve_feature,
    "POST /v1/entitlements/features/{}": update_feature,
    "GET /v1/products": list_products,
    "POST /v1/products": create_product,
    "POST /v1/products/{}": update_product,
    "DELETE /v1/products/{}": delete_product,
    "GET /v1/products/{}/features": list_attached_features,
    "POST /v1/products/{}/features": attach_feature,
    "GET /v1/products/{}/features/{}": retrieve_attached_feature,
    "DELETE /v1/products/{}/features/{}": detach_feature,
}
