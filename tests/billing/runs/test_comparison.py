"""Drift of a record, found by comparing it with Stripe's object."""

from datetime import UTC, datetime, timedelta

import pytest

from services.billing.customers.models import ProviderMapping
from services.billing.runs.comparison import customer_drift, subscription_drift
from services.billing.stripe_api.models import StripeCustomer, StripeSubscription
from services.billing.subscriptions.models import Subscription

NOW = datetime(2026, 11, 21, 6, 5, tzinfo=UTC)


def stripe_customer(
    *, email: str | None = "ada@example.com", user_id: str | None = None, deleted: bool = False
) -> StripeCustomer:
    return StripeCustomer(id="cus_1", email=email, user_id=user_id, deleted=deleted)


def stripe_subscription(*, status: str = "active", customer: StripeCustomer | None = None) -> StripeSubscription:
    return StripeSubscription(
        id="sub_1",
        customer=customer or stripe_customer(),
        status=status,
        product_id="prod_1",
        user_id=None,
        trial_id=None,
        created=NOW,
        period_start=NOW,
        period_end=NOW + timedelta(days=30),
        cancel_at=None,
        cancel_at_period_end=False,
        canceled_at=None,
        ended_at=None,
        trial_start=None,
        trial_end=None,
        coupons=frozenset(),
        duplicate_of=None,
        livemode=False,
    )


def stored() -> Subscription:
    return Subscription.first_seen("ours_1", "user_1", stripe_subscription(), at=NOW)


def test_an_equal_record_has_no_drift() -> None:
    assert subscription_drift("sub_1", stored(), stripe_subscription(), "user_1") is None
    assert subscription_drift("sub_1", stored(), stripe_subscription(), None) is None


def test_each_differing_field_is_listed_with_both_values() -> None:
    drift = subscription_drift("sub_1", stored(), stripe_subscription(status="past_due"), "user_2")
    assert drift is not None
    assert (drift.kind, drift.repairable, drift.our_id) == ("differs", True, "ours_1")
    assert drift.field_differences == [
        {"field": "user_id", "ours": "user_1", "theirs": "user_2"},
        {"field": "status", "ours": "active", "theirs": "past_due"},
    ]


@pytest.mark.parametrize(
    ("customer", "user_id", "kind"),
    [
        (stripe_customer(), None, "missing_here"),
        (stripe_customer(email=None), "user_1", "missing_here"),
        (stripe_customer(email=None), None, "nobody"),
        (stripe_customer(email=None, deleted=True), None, None),
    ],
)
def test_a_subscription_without_a_record_is_missing_here_or_without_user(
    customer: StripeCustomer, user_id: str | None, kind: str | None
) -> None:
    drift = subscription_drift("sub_1", None, stripe_subscription(customer=customer), user_id)
    assert (None if drift is None else drift.kind) == kind


def test_a_record_that_stripe_lacks_cannot_be_repaired() -> None:
    drift = subscription_drift("sub_1", stored(), None, None)
    assert drift is not None
    assert (drift.kind, drift.repairable) == ("missing_there", False)


def test_a_mapping_differs_only_from_the_customers_own_metadata() -> None:
    mapping = ProviderMapping(
        id="provmap_1", user_id="user_1", provider_type="stripe", provider_value="cus_1", created_at=NOW, updated_at=NOW
    )
    assert customer_drift("cus_1", None, stripe_customer()) is None
    assert customer_drift("cus_1", mapping, stripe_customer()) is None
    assert customer_drift("cus_1", mapping, stripe_customer(deleted=True)) is None
    moved = customer_drift("cus_1", mapping, stripe_customer(user_id="user_2"))
    assert moved is not None
    assert moved.field_differences == [{"field": "user_id", "ours": "user_1", "theirs": "user_2"}]
