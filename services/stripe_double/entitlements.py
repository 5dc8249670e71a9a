"""Active entitlements of customers: the features that the products of their subscriptions grant.

Stripe takes the features of a product when a subscription begins, changes its items or renews, so a feature that is
attached or detached meanwhile counts from the next period on (docs.stripe.com/billing/entitlements).
"""

from collections.abc import Callable

from services.stripe_double import events
from services.stripe_double.account import Account, Json
from services.stripe_double.params import Params
from services.stripe_double.rendering import NESTED_LIMIT, list_page
from services.stripe_double.subscription_status import ENDED

INACTIVE = (*ENDED, "incomplete", "unpaid", "paused")


def follow_subscription(account: Account, event_type: str, subscription: Json, before: Json | None) -> None:
    """Take the features of a subscription that began, ended, renewed or changed its items or status."""
    if not event_type.startswith("customer.subscription."):
        return
    if before is not None and all(before[name] == subscription[name] for name in ("status", "items")):
        return
    customer, former = subscription["customer"], active_entitlements(account, subscription["customer"])
    granted = [] if subscription["status"] in INACTIVE else _features_of(account, subscription)
    account.put({"id": subscription["id"], "object": "_granted", "customer": customer, "features": granted})
    current = active_entitlements(account, customer)
    if current != former:
        summary, earlier = _summary(customer, current), _summary(customer, former)
        events.emit(account, "entitlements.active_entitlement_summary.updated", summary, before=earlier)


def active_entitlements(account: Account, customer: str) -> list[Json]:
    """Return a customer's active entitlements, each feature once."""
    features = {feature for granted in account.owned("_granted", customer) for feature in granted["features"]}
    return [
        {
            "id": f"ent_test_{customer.removeprefix('cus_')}{feature.removeprefix('feat_')}",
            "object": "entitlements.active_entitlement",
            "feature": feature,
            "livemode": False,
            "lookup_key": account.get("entitlements.feature", feature)["lookup_key"],
        }
        for feature in sorted(features)
    ]


def list_active_entitlements(account: Account, params: Params) -> Json:
    """GET /v1/entitlements/active_entitlements: those of a customer."""
    customer = params.required("customer")
    account.get("customer", customer, param="customer")
    return list_page(account, params, "/v1/entitlements/active_entitlements", active_entitlements(account, customer))


def _features_of(account: Account, subscription: Json) -> list[str]:
    products = {account.get("price", item["price"])["product"] for item in subscription["items"]}
    features = {each["_feature"] for product in products for each in account.owned("product_feature", product)}
    return sorted(each for each in features if account.get("entitlements.feature", each)["active"])


def _summary(customer: str, entitlements: list[Json]) -> Json:
    return {
        "object": "entitlements.active_entitlement_summary",
        "customer": customer,
        "entitlements": {
            "object": "list",
            "data": entitlements[:NESTED_LIMIT],
            "has_more": len(entitlements) > NESTED_LIMIT,
            "url": f"/v1/customer/{customer}/entitlements",
        },
        "livemode": False,
    }


events.FOLLOWERS.append(follow_subscription)

ROUTES: dict[str, Callable[..., Json]] = {"GET /v1/entitlements/active_entitlements": list_active_entitlements}
