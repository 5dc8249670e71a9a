"""Features of a user, from the subscriptions, the catalog, and Stripe's active entitlements."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.billing.entitlements.models import (
    MAX_FEATURES,
    ActiveEntitlements,
    Entitlements,
    ProductFeatures,
    entitled_features,
)
from services.billing.subscriptions.models import AccessPolicy, Subscription

NOW = datetime(2026, 12, 1, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = AccessPolicy(grace=30 * DAY)
PRODUCTS = {
    "prod_basic": ProductFeatures(frozenset({"api"}), from_stripe=True),
    "prod_pro": ProductFeatures(frozenset({"api", "sso"}), from_stripe=True),
    "prod_addon": ProductFeatures(frozenset({"sso", "storage"}), from_stripe=False),
    "prod_bare": ProductFeatures(frozenset(), from_stripe=False),
}


def subscription(product: str, **changed: Any) -> Subscription:
    defaults: dict[str, Any] = {
        "id": f"sub_{product}",
        "user_id": "user_ada",
        "stp_product_id": product,
        "stp_subscription_id": f"sub_{product}",
        "stp_customer_id": "cus_1",
        "status": "active",
        "starts_at": NOW - 20 * DAY,
        "ends_at": NOW + 10 * DAY,
        "cancel_at": None,
        "cancel_type": None,
        "cancelled_at": None,
        "stp_created_at": NOW - 20 * DAY,
        "trial_id": None,
        "duplicate_of": None,
        "welcomed_at": None,
        "read_at": NOW - DAY,
        "created_at": NOW - 20 * DAY,
        "updated_at": NOW - DAY,
    }
    return Subscription(**{**defaults, **changed})


def reading(*features: str, at: datetime = NOW, customer: str = "cus_1") -> ActiveEntitlements:
    return ActiveEntitlements(stp_customer_id=customer, features=features, read_at=at)


BASIC, PRO, ADDON = (subscription(f"prod_{name}") for name in ("basic", "pro", "addon"))
ENDED = {"status": "canceled", "ends_at": NOW - DAY}


@pytest.mark.parametrize(
    ("subscriptions", "active", "features"),
    [
        ([], [], ""),
        ([BASIC], [], "api"),
        ([PRO, ADDON], [], "api sso storage"),
        ([subscription("prod_bare")], [], ""),
        ([subscription("prod_unknown")], [], ""),
        # Access is decided by the rule of subscriptions: leeway, grace period, pause, checkout, end.
        ([subscription("prod_basic", ends_at=NOW - timedelta(hours=1))], [], "api"),
        ([subscription("prod_basic", ends_at=NOW - timedelta(hours=2))], [], ""),
        ([subscription("prod_basic", status="past_due", overdue_since=NOW - 29 * DAY)], [], "api"),
        ([subscription("prod_basic", status="past_due", overdue_since=NOW - 30 * DAY)], [], ""),
        ([subscription("prod_basic", collection_paused="void")], [], ""),
        ([subscription("prod_basic", collection_paused="keep_as_draft")], [], "api"),
        *(([subscription("prod_basic", status=status)], [], "") for status in ("incomplete", "unpaid", "paused")),
        ([subscription("prod_basic", status="trialing")], [], "api"),
        ([subscription("prod_basic", **ENDED)], [reading("api")], ""),
        # Stripe adds a feature of the product at the renewal, and keeps one that was removed until then.
        ([PRO], [reading("api")], "api"),
        ([BASIC], [reading("api", "legacy")], "api legacy"),
        ([BASIC], [reading()], ""),
        # A reading from before the last change of the subscription is outdated.
        ([PRO], [reading("api", at=NOW - 2 * DAY)], "api sso"),
        # Stripe's entitlements say nothing of features in metadata.
        ([BASIC, ADDON], [reading("api")], "api sso storage"),
        # What only a subscription without access here gives is not given.
        ([BASIC, subscription("prod_pro", collection_paused="void")], [reading("api", "sso")], "api"),
        # Another customer's reading.
        ([PRO], [reading(customer="cus_2")], "api sso"),
    ],
)
def test_features_follow_access_and_products(
    subscriptions: list[Subscription], active: list[ActiveEntitlements], features: str
) -> None:
    found = entitled_features(subscriptions, PRODUCTS, active, at=NOW, policy=POLICY)
    assert sorted(found) == features.split()


def test_number_grows_with_each_change_only() -> None:
    row = Entitlements.none("user_ada", at=NOW)
    assert (row.features, row.ent_v) == ((), 0)
    row = row.with_features({"b", "a"}, at=NOW + DAY)
    assert (row.features, row.ent_v, row.updated_at) == (("a", "b"), 1, NOW + DAY)
    assert row.with_features(["a", "b"], at=NOW + 2 * DAY) is row
    assert row.with_features([], at=NOW).ent_v == 2
    assert len(row.with_features([str(number) for number in range(MAX_FEATURES + 1)], at=NOW).features) == MAX_FEATURES


def test_the_latest_reading_of_each_customer_is_kept() -> None:
    row = Entitlements.none("user_ada", at=NOW).with_active(reading("a")).with_active(reading("b", customer="cus_2"))
    newer = row.with_active(reading("c", at=NOW + DAY))
    assert {each.stp_customer_id: each.features for each in newer.active} == {"cus_1": ("c",), "cus_2": ("b",)}
    assert newer.with_active(reading("d")) is newer
    assert replace(newer, version=1).ent_v == 0
