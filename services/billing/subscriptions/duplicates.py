"""Rules of duplicates: which of a user's live subscriptions exclude each other, and which one of them is kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from services.billing.subscriptions.models import AccessPolicy, Subscription, by_preference


@dataclass(frozen=True, slots=True)
class Exclusions:
    """Products of which a user may have one subscription at a time.

    The prices of one product always exclude each other. ``groups`` are sets of products that do so too.
    """

    groups: tuple[frozenset[str], ...] = ()

    def plans_of(self, products: frozenset[str]) -> frozenset[frozenset[str]]:
        """What a subscription to these products is for: for each product the group, or the product alone."""
        return frozenset(self._group_of(product) for product in products)

    def _group_of(self, product: str) -> frozenset[str]:
        return next((group for group in self.groups if product in group), frozenset({product}))


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A live subscription whose user has a better one for the same product.

    ``complete`` is whether the kept subscription includes all products of this one, so that nothing is lost with it.
    """

    subscription: Subscription
    kept: Subscription
    complete: bool

    @property
    def cancellable(self) -> bool:
        """Whether Nest may cancel it; otherwise it is announced, and a person decides.

        That is so for a subscription that was taken over with an imported account, for one that also has another
        product, and for a pair that came about because somebody moved a subscription to this user.
        """
        moved = self.subscription.moved_at is not None or self.kept.moved_at is not None
        return self.complete and not self.subscription.taken_over and not moved

    @property
    def replaced_trial(self) -> bool:
        """Whether it is a trial that ends because its user subscribed, and not a subscription bought twice."""
        subscription = self.subscription
        trial = subscription.status == "trialing" and not subscription.paid
        return trial and subscription.stp_created_at <= self.kept.stp_created_at


def live_duplicates(
    subscriptions: Iterable[Subscription], *, at: datetime, policy: AccessPolicy, exclusions: Exclusions
) -> list[Duplicate]:
    """The live subscriptions of a user that another live one excludes, which comes first in ``by_preference``."""
    kept: list[Subscription] = []
    duplicates: list[Duplicate] = []
    for subscription in sorted((each for each in subscriptions if each.live(at, policy)), key=by_preference):
        plans = exclusions.plans_of(subscription.products)
        of_rivals = [(each, exclusions.plans_of(each.products)) for each in kept]
        rivals = [(each, of_rival) for each, of_rival in of_rivals if of_rival & plans]
        whole = next((each for each, of_rival in rivals if plans <= of_rival), None)
        if whole is not None:
            duplicates.append(Duplicate(subscription, whole, complete=True))
        else:
            duplicates += [Duplicate(subscription, each, complete=False) for each, _ in rivals]
            kept.append(subscription)
    return duplicates


def rival_of(
    products: frozenset[str],
    subscriptions: Iterable[Subscription],
    *,
    at: datetime,
    policy: AccessPolicy,
    exclusions: Exclusions,
) -> Subscription | None:
    """The live one of these subscriptions that excludes a further one with these products, the one to keep first."""
    plans = exclusions.plans_of(products)
    rivals = [each for each in subscriptions if each.live(at, policy) and exclusions.plans_of(each.products) & plans]
    return min(rivals, key=by_preference, default=None)


def excludes(
    subscription: Subscription, kept: Subscription, *, at: datetime, policy: AccessPolicy, exclusions: Exclusions
) -> Duplicate | None:
    """The pair, if of the two the first is the duplicate that may be cancelled."""
    found = live_duplicates([subscription, kept], at=at, policy=policy, exclusions=exclusions)
    return next((each for each in found if each.subscription is subscription and each.cancellable), None)
