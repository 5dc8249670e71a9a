"""Entitlements: the features that a user has access to, and the event of their changes."""

from shared.messages.billing.stripe_events import StripeReread
from shared.messages.message import Command, Event
from shared.messages.types import AnyId, Many, StripeId


class EntitlementsChanged(Event, wire="billing.entitlements-changed"):
    """The features that a user has access to changed.

    Published once for each version, with the change of the subscription, and when access ends by time alone.
    """

    user_id: str
    features: Many[str]
    """Lookup keys of all features of the user now, sorted."""
    version: int
    """Number of the change, from 1. A reader ignores an event whose version is not higher than the one it has."""


class FollowEntitlements(StripeReread, wire="billing.follow-entitlements"):
    """Read the active entitlements of a customer from Stripe, and update the features of its user."""

    customer_id: str
    """Stripe's ID, ``cus_…``."""


class RefreshEntitlements(Command, wire="billing.refresh-entitlements"):
    """Compute features again: of one user, or of the next users who subscribe to a product whose features changed."""

    user_id: AnyId = ""
    """ID of the user; empty for those of a product."""
    product_id: StripeId | None = None
    """Stripe's ID of the product."""
    after: AnyId = ""
    """ID of the last subscription that was covered; empty at the start."""
