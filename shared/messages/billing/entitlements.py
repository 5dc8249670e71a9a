"""Entitlements: the features that a user has access to, and the event of their changes."""

from shared.messages.message import Event
from shared.messages.types import Many


class EntitlementsChanged(Event, wire="billing.entitlements-changed"):
    """The features that a user has access to changed.

    Published once for each version, with the change of the subscription, and when access ends by time alone.
    """

    user_id: str
    features: Many[str]
    """Lookup keys of all features of the user now, sorted."""
    version: int
    """Number of the change, from 1. A reader ignores an event whose version is not higher than the one it has."""
