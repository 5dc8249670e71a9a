"""Rules of entitlements: which features the subscriptions of a user entitle to.

A subscription that entitles by its status, period, leeway and grace period (``Subscription.entitled``) gives the
features of its products. Those of a product are in the catalog: the lookup keys of its features in Stripe Entitlements,
else its metadata ``features``.

Stripe gives a feature that was added to a product to existing subscriptions at their next renewal, and takes one away
likewise (https://docs.stripe.com/billing/entitlements). So if the active entitlements of a customer were read from
Stripe after the last change of its subscriptions, they replace the features of products that use Stripe Entitlements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self

from services.billing.subscriptions.models import AccessPolicy, Subscription

MAX_FEATURES: Final = 500
"""Features of a user. Stripe limits those of a product to 100."""


@dataclass(frozen=True, slots=True)
class ProductFeatures:
    """Lookup keys of the features of a product, and whether they are from Stripe Entitlements."""

    keys: frozenset[str]
    from_stripe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveEntitlements:
    """The lookup keys of the active entitlements of a Stripe customer, as read from Stripe at ``read_at``."""

    stp_customer_id: str
    features: tuple[str, ...]
    read_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlements:
    """The features of a user; ``id`` is the user's.

    Attributes:
        features: lookup keys, sorted.
        ent_v: number of the last change of ``features``; 0 if the user never had any.
        active: the active entitlements of the user's customers in Stripe, if they were read.
    """

    id: str
    features: tuple[str, ...] = ()
    ent_v: int = 0
    active: tuple[ActiveEntitlements, ...] = ()
    updated_at: datetime
    version: int = 1

    @classmethod
    def none(cls, user_id: str, *, at: datetime) -> Self:
        """The row of a user without features."""
        return cls(id=user_id, updated_at=at)

    def with_features(self, features: Iterable[str], *, at: datetime) -> Self:
        """The row with these features; a change gets the next number."""
        keys = tuple(sorted(features))[:MAX_FEATURES]
        if keys == self.features:
            return self
        return replace(self, features=keys, ent_v=self.ent_v + 1, updated_at=at)

    def with_active(self, active: ActiveEntitlements) -> Self:
        """The row with a reading of a customer's active entitlements; an older one changes nothing."""
        known = [each for each in self.active if each.stp_customer_id == active.stp_customer_id]
        if known and known[0].read_at > active.read_at:
            return self
        others = [each for each in self.active if each.stp_customer_id != active.stp_customer_id]
        return replace(self, active=(*others, active), updated_at=active.read_at)


def entitled_features(
    subscriptions: Sequence[Subscription],
    products: Mapping[str, ProductFeatures],
    active: Iterable[ActiveEntitlements],
    *,
    at: datetime,
    policy: AccessPolicy,
) -> frozenset[str]:
    """The features to which a user's subscriptions entitle at a time; ``products`` are those of the subscriptions."""
    readings = {each.stp_customer_id: each for each in active}
    features: set[str] = set()
    for customer_id in {each.stp_customer_id for each in subscriptions}:
        of_customer = [each for each in subscriptions if each.stp_customer_id == customer_id]
        entitling = [each for each in of_customer if each.entitled(at, policy)]
        if not entitling:
            continue
        granted = _features_of(entitling, products)
        features |= granted
        reading = readings.get(customer_id)
        if reading is None or any(each.updated_at > reading.read_at for each in of_customer):
            continue
        of_stripe = _features_of(entitling, products, from_stripe=True)
        # Stripe's active entitlements include those of subscriptions that entitle to nothing here, because their grace
        # period has ended, or collection is paused.
        of_others = _features_of([each for each in of_customer if each not in entitling], products)
        features -= of_stripe - frozenset(reading.features) - _features_of(entitling, products, from_stripe=False)
        features |= frozenset(reading.features) - (of_others - granted)
    return frozenset(features)


def _features_of(
    subscriptions: Iterable[Subscription], products: Mapping[str, ProductFeatures], *, from_stripe: bool | None = None
) -> frozenset[str]:
    found = [products[each] for subscription in subscriptions for each in subscription.products if each in products]
    return frozenset().union(*(each.keys for each in found if from_stripe in (None, each.from_stripe)))


def grants(
    subscription: Subscription | None, *, at: datetime, policy: AccessPolicy
) -> tuple[str, frozenset[str]] | None:
    """The user of a subscription that entitles, and its products; None if it does not."""
    if subscription is None or not subscription.entitled(at, policy):
        return None
    return subscription.user_id, subscription.products
