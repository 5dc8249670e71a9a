"""Endpoint families of Stripe's API: each has its own circuit breaker and its own bound on concurrent calls."""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import Gauge

from shared.circuit_breaker import CircuitBreaker

FAMILIES: Final = {
    "subscriptions": ("subscriptions", "subscription_items", "subscription_schedules"),
    "customers": ("customers",),
    "invoices": ("invoices", "invoiceitems", "invoice_payments", "credit_notes"),
    "payments": ("payment_intents", "payment_methods", "setup_intents", "charges", "refunds"),
    "disputes": ("disputes",),
    "billing_portal": ("billing_portal",),
    "checkout": ("checkout",),
    "catalog": ("products", "prices", "coupons", "promotion_codes"),
    "entitlements": ("entitlements",),
    "usage": ("billing",),
    "events": ("events",),
}
"""Families, and the first parts of their paths after ``/v1/``; ``billing`` has the meters and their events."""
OTHER: Final = "other"
CONCURRENT_CALLS: Final = 32
"""Calls to one family at the same time, of callers and of the background each. At half a second for a call this allows
64 calls a second. If a family hangs, so many commands wait for it, until its circuit breaker opens."""
_FAMILY_OF: Final = {part: family for family, parts in FAMILIES.items() for part in parts}
_RUNNING: Final = Gauge("nest_stripe_calls_running", "Calls to Stripe that wait for its response.", ["family"])


def family_of(path: str) -> str:
    """The family of a path, ``/v1/…`` or ``/v2/…``."""
    parts = path.split("/", 3)
    return _FAMILY_OF.get(parts[2], OTHER) if len(parts) > 2 else OTHER  # noqa: PLR2004 -- "", version, first part


class Family:
    """One family of one account.

    Attributes:
        name: of the family.
        breaker: rejects its calls while it fails.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.breaker = CircuitBreaker(f"stripe_{name}", failures=5, first_pause=1.0)
        self.running = _RUNNING.labels(name)
        self._callers = asyncio.Semaphore(CONCURRENT_CALLS)
        self._background = asyncio.Semaphore(CONCURRENT_CALLS)

    @property
    def background_full(self) -> bool:
        """Whether a further call of the background would wait for another one to end."""
        return self._background.locked()

    def slot(self, *, background: bool) -> asyncio.Semaphore:
        """The semaphore of the concurrent calls."""
        return self._background if background else self._callers


class FamilyBreakers:
    """All families of one account."""

    def __init__(self) -> None:
        self._families = {name: Family(name) for name in (*FAMILIES, OTHER)}

    def of(self, path: str) -> Family:
        """The family of a path."""
        return self._families[family_of(path)]

    def succeeded(self) -> None:
        """Close every circuit."""
        for family in self._families.values():
            family.breaker.succeeded()
