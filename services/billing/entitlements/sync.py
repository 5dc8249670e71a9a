"""Update of a user's features, in the work that records a change of a subscription, a product or an entitlement."""

from __future__ import annotations

from typing import Final

from services.billing.context import Billing
from services.billing.entitlements.models import ActiveEntitlements, Entitlements, ProductFeatures, entitled_features
from services.billing.stripe_api.catalog_models import StripeProduct
from services.billing.subscriptions.models import Subscription
from shared.bus.work import Work
from shared.messages.billing.entitlements import EntitlementsChanged, RefreshEntitlements

REFRESH: Final = "entitlements"
"""Ordering key of the commands that refresh the users of a product: one step at a time."""


async def update_entitlements(
    user_id: str,
    work: Work,
    billing: Billing,
    *,
    changed: Subscription | None = None,
    decisive: bool = False,
    active: ActiveEntitlements | None = None,
) -> None:
    """Compute the features of a user, store them with the work, and announce a change.

    Args:
        user_id: the user.
        work: the unit of work, which is committed as a whole.
        billing: the context.
        changed: a subscription that this work records; it is the user's, or was until now.
        decisive: whether the features depend on ``changed`` in another way than before. The row is then written in any
            case, so that of two such works one runs again and sees the other's subscription.
        active: a new reading of a customer's active entitlements.
    """
    if billing.entitlements.written_by(work, user_id):
        # A work can't write a row twice.
        work.publish(RefreshEntitlements(key=user_id, user_id=user_id))
        return
    stored = await billing.entitlements.find(user_id)
    before = stored or Entitlements.none(user_id, at=work.now)
    noted = before if active is None else before.with_active(active)
    features = await current_features(noted, work, billing, changed=changed)
    updated = noted.with_features(features, at=work.now)
    if updated != before or decisive:
        billing.entitlements.add_or_save(updated, work, stored=stored)
    if updated.ent_v != before.ent_v:
        work.publish(
            EntitlementsChanged(key=user_id, user_id=user_id, features=updated.features, version=updated.ent_v)
        )


async def current_features(
    entitlements: Entitlements, work: Work, billing: Billing, *, changed: Subscription | None = None
) -> frozenset[str]:
    """The features to which a user's subscriptions entitle now; arguments as for ``update_entitlements``."""
    subscriptions = await billing.subscriptions.of_user(entitlements.id)
    if changed is not None:
        subscriptions = [each for each in subscriptions if each.id != changed.id]
        if changed.user_id == entitlements.id and billing.sells(changed.stp_product_id):
            subscriptions.append(changed)
    products = {
        product_id: await _features_of(product_id, billing)
        for subscription in subscriptions
        if not subscription.ended
        for product_id in subscription.products
    }
    return entitled_features(subscriptions, products, entitlements.active, at=work.now, policy=billing.access)


async def _features_of(product_id: str, billing: Billing) -> ProductFeatures:
    # Not from the catalog's memory, which may be older than the change that ordered a refresh.
    record = await billing.catalog.products.find(product_id)
    if record is None:
        return ProductFeatures(frozenset(), from_stripe=False)
    return ProductFeatures(frozenset(record.product.features), from_stripe=bool(record.product.entitlements))


def refresh_users_of(before: StripeProduct | None, product: StripeProduct, work: Work) -> None:
    """Order the features of a product's users again if those of the product changed, or were not known before."""
    if product.features == (() if before is None else before.features):
        return
    work.publish(RefreshEntitlements(key=REFRESH, product_id=product.id))
