"""Configurations of the customer portal (docs.stripe.com/api/customer_portal/configurations)."""

from collections.abc import Callable

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.params import Params
from services.stripe_double.rendering import filter_boolean, list_page

KIND = "billing_portal.configuration"
UPDATES = ("address", "email", "name", "phone", "shipping", "tax_id")
CANCEL_MODES = ("at_period_end", "immediately")
PRORATIONS = ("always_invoice", "create_prorations", "none")
REASONS = (
    *("customer_service", "low_quality", "missing_features", "other"),
    *("switched_service", "too_complex", "too_expensive", "unused"),
)
MAX_PRODUCTS = 10
OWN = "bpc_1StripeDouble"
"""Configuration of sessions while the account has none: the portal allows everything. Stripe refuses such sessions."""
_OFF: Json = {
    "customer_update": {"allowed_updates": [], "enabled": False},
    "invoice_history": {"enabled": False},
    "payment_method_update": {"enabled": False, "payment_method_configuration": None},
    "subscription_cancel": {
        "cancellation_reason": {"enabled": False, "feedback_options": None, "options": []},
        "enabled": False,
        "mode": "at_period_end",
        "proration_behavior": "none",
    },
    "subscription_update": {
        "billing_cycle_anchor": None,
        "default_allowed_updates": [],
        "enabled": False,
        "products": [],
        "proration_behavior": "none",
        "schedule_at_period_end": {"conditions": []},
        "trial_update_behavior": "end_trial",
    },
}
_ALL: Json = {
    **_OFF,
    "invoice_history": {"enabled": True},
    "payment_method_update": {"enabled": True, "payment_method_configuration": None},
    "subscription_cancel": {
        **_OFF["subscription_cancel"],
        "cancellation_reason": {"enabled": True, "feedback_options": None, "options": list(REASONS)},
        "enabled": True,
    },
    "subscription_update": {
        **_OFF["subscription_update"],
        "default_allowed_updates": ["price", "quantity"],
        "enabled": True,
        "proration_behavior": "always_invoice",
    },
}


def default_id(account: Account) -> str:
    """Return the ID of the account's default configuration; `OWN` if it has none."""
    return next((str(each["id"]) for each in account.all(KIND) if each["is_default"]), OWN)


def features_of(account: Account, identifier: str) -> Json:
    """Return the features of a configuration, or of `OWN`."""
    configuration = account.find(KIND, identifier)
    features: Json = configuration["features"] if configuration else _ALL
    return features


def create_configuration(account: Account, params: Params) -> Json:
    """POST /v1/billing_portal/configurations; the first one is the default."""
    if "features" not in params:
        raise params.missing("features")
    features = _features(account, params, _OFF)
    configuration = account.new(
        KIND,
        active=True,
        application=None,
        business_profile=_business_profile(
            params, {"headline": None, "privacy_policy_url": None, "terms_of_service_url": None}
        ),
        default_return_url=params.string("default_return_url"),
        features=features,
        is_default=not account.all(KIND),
        login_page=_login_page(params, {"enabled": False, "url": None}),
        metadata=params.metadata(),
        name=params.string("name"),
        updated=account.now,
    )
    params.reject_unknown()
    events.emit(account, f"{KIND}.created", account.put(configuration))
    return configuration


def update_configuration(account: Account, params: Params, identifier: str) -> Json:
    """POST /v1/billing_portal/configurations/{id}."""
    configuration = account.get(KIND, identifier)
    changes: Json = {
        **params.sent_strings(("default_return_url", "name")),
        "active": params.boolean("active", default=configuration["active"]),
        "business_profile": _business_profile(params, configuration["business_profile"]),
        "features": _features(account, params, configuration["features"]),
        "login_page": _login_page(params, configuration["login_page"]),
        "metadata": params.metadata(configuration["metadata"]),
    }
    params.reject_unknown()
    if configuration["is_default"] and not changes["active"]:
        raise params.invalid("active", "You cannot deactivate the default configuration.")
    updated = {**configuration, **changes}
    if updated == configuration:
        return configuration
    updated = account.put({**updated, "updated": account.now})
    return events.emit_if_changed(account, f"{KIND}.updated", configuration, updated)


def list_configurations(account: Account, params: Params) -> Json:
    """GET /v1/billing_portal/configurations."""
    found = filter_boolean(params, account.all(KIND), "active")
    return list_page(account, params, "/v1/billing_portal/configurations", filter_boolean(params, found, "is_default"))


def _business_profile(params: Params, present: Json) -> Json:
    sent = params.nested("business_profile")
    if sent is None:
        return present
    changed = {**present, **sent.sent_strings(tuple(present))}
    sent.reject_unknown()
    return changed


def _login_page(params: Params, present: Json) -> Json:
    sent = params.nested("login_page")
    if sent is None:
        return present
    enabled = sent.boolean("enabled", default=present["enabled"])
    sent.reject_unknown()
    return {"enabled": enabled, "url": None}


def _features(account: Account, params: Params, present: Json) -> Json:
    sent = params.nested("features")
    if sent is None:
        return present
    changed = dict(present)
    for name, read in _READERS.items():
        feature = sent.nested(name)
        if feature is not None:
            enabled = feature.boolean("enabled", default=present[name]["enabled"])
            changed[name] = {**present[name], "enabled": enabled, **read(account, feature)}
            feature.reject_unknown()
    sent.reject_unknown()
    return changed


def _nothing(_: Account, feature: Params) -> Json:
    return feature.sent_strings(("payment_method_configuration",))


def _customer_update(_: Account, feature: Params) -> Json:
    if "allowed_updates" not in feature:
        return {}
    return {"allowed_updates": _choices(feature, "allowed_updates", UPDATES)}


def _cancel(_: Account, feature: Params) -> Json:
    changed: Json = {}
    for name, options in (("mode", CANCEL_MODES), ("proration_behavior", PRORATIONS)):
        if name in feature:
            changed[name] = feature.choice(name, options)
    reason = feature.nested("cancellation_reason")
    if reason is not None:
        changed["cancellation_reason"] = {
            "enabled": reason.boolean("enabled", default=False),
            "feedback_options": None,
            "options": _choices(reason, "options", REASONS),
        }
        reason.reject_unknown()
    return changed


def _update(account: Account, feature: Params) -> Json:
    changed: Json = {}
    if "default_allowed_updates" in feature:
        changed["default_allowed_updates"] = _choices(
            feature, "default_allowed_updates", ("price", "promotion_code", "quantity")
        )
    if "proration_behavior" in feature:
        changed["proration_behavior"] = feature.choice("proration_behavior", PRORATIONS)
    if "products" in feature:
        changed["products"] = [_product(account, entry) for entry in feature.nested_list("products")]
        if len(changed["products"]) > MAX_PRODUCTS:
            raise feature.invalid("products", f"You may only specify up to {MAX_PRODUCTS} products.")
    return changed


def _product(account: Account, entry: Params) -> Json:
    product = account.get("product", entry.required("product"), param=entry.encoded_name("product"))
    prices = [account.get("price", each, param=entry.encoded_name("prices")) for each in entry.strings("prices")]
    entry.reject_unknown()
    if any(price["product"] != product["id"] or not price["active"] for price in prices):
        raise entry.invalid("prices", "The prices must be active prices of the product.")
    return {
        "adjustable_quantity": {"enabled": False, "maximum": None, "minimum": 1},
        "prices": [price["id"] for price in prices],
        "product": product["id"],
    }


def _choices(params: Params, name: str, options: tuple[str, ...]) -> list[str]:
    chosen = params.strings(name)
    if not set(chosen) <= set(options):
        raise params.invalid(name, f"Invalid {name}: must be one of {', '.join(options)}")
    return chosen


_READERS: dict[str, Callable[[Account, Params], Json]] = {
    "customer_update": _customer_update,
    "invoice_history": _nothing,
    "payment_method_update": _nothing,
    "subscription_cancel": _cancel,
    "subscription_update": _update,
}


def _retrieve(account: Account, params: Params, identifier: str) -> Json:
    params.reject_unknown()
    return account.get(KIND, identifier)


ROUTES: dict[str, Callable[..., Json]] = {
    "GET /v1/billing_portal/configurations": list_configurations,
    "POST /v1/billing_portal/configurations": create_configuration,
    "GET /v1/billing_portal/configurations/{}": _retrieve,
    "POST /v1/billing_portal/configurations/{}": update_configuration,
}
