"""Endpoint families of Stripe's API: each has its own circuit breaker and its own bound on concurrent calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
64 calls a second."""
INITIAL_CALL_SECONDS: Final = 0.5
"""Estimated duration of a call, until durations have been measured."""
_FAMILY_OF: Final = {part: family for family, parts in FAMILIES.items() for part in parts}
_RUNNING: Final = Gauge("nest_stripe_calls_running", "Calls to Stripe that wait for its response.", ["family"])


def family_of(path: str) -> str:
    """The family of a path, ``/v1/…`` or ``/v2/…``."""
    parts = path.split("/", 3)
    return _FAMILY_OF.get(parts[2], OTHER) if len(parts) > 2 else OTHER  # noqa: PLR2004 -- "", version, first part


class NoSlot(Exception):
    """The concurrent calls of a family are at their maximum."""


class Family:
    """One family of one account.

    Attributes:
        name: of the family.
        breaker: rejects its calls while it fails.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.breaker = CircuitBreaker(f"stripe_{name}", failures=5, first_pause=1.0)
        self._running = _RUNNING.labels(name)
        self._callers = asyncio.Semaphore(CONCURRENT_CALLS)
        self._background = asyncio.Semaphore(CONCURRENT_CALLS)
        self._background_waiting = 0
        self._began: dict[object, float] = {}
        """When each running call began, the oldest first."""
        self._call_seconds = INITIAL_CALL_SECONDS

    @property
    def background_wait(self) -> float:
        """Estimated seconds until a further call of the background begins; 0 while fewer than the maximum run.

        The age of the oldest running call counts too: if the family hangs, no call ends that could be measured.
        """
        if not self._background.locked():
            return 0.0
        oldest = asyncio.get_running_loop().time() - next(iter(self._began.values()), float("inf"))
        return (self._background_waiting + 1) / CONCURRENT_CALLS * max(self._call_seconds, oldest)

    @asynccontextmanager
    async def slot(self, *, background: bool, until: float) -> AsyncIterator[None]:
        """Wait until a call may run, and hold its place during the block.

        Args:
            background: whether no caller waits for it.
            until: in the time of the event loop.

        Raises:
            NoSlot: no place was free in time.
        """
        slots = self._background if background else self._callers
        self._background_waiting += background
        try:
            async with asyncio.timeout_at(until):
                await slots.acquire()
        except TimeoutError:
            raise NoSlot from None
        finally:
            self._background_waiting -= background
        loop, call = asyncio.get_running_loop(), object()
        self._began[call] = loop.time()
        try:
            with self._running.track_inprogress():
                yield
        finally:
            self._call_seconds += (loop.time() - self._began.pop(call) - self._call_seconds) / 8
            slots.release()


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
